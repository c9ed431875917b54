//! `IsNaN`: whether x is no number. <https://onnx.ai/onnx/operators/onnx__IsNaN.html>
//!
//! Opsets: 9, 13 (bfloat16), 20 (float 8).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("IsNaN", &[9, 13, 20], |_| unary(Tensor::f_isnan))
    .without_gradient()
    .shapes(rules::same_as_first);
