//! `GreaterOrEqual`: whether a ≥ b, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__GreaterOrEqual.html>
//!
//! Opsets: 12, 16 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("GreaterOrEqual", &[12, 16], |p| binary(p, Tensor::f_ge_tensor))
    .without_gradient()
    .shapes(rules::broadcast);
