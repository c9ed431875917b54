//! `Sign`: -1, 0 or 1. <https://onnx.ai/onnx/operators/onnx__Sign.html>
//!
//! Opsets: 9, 13 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Sign", &[9, 13], |_| unary(Tensor::f_sign))
    .without_gradient()
    .shapes(rules::same_as_first);
