//! `Round`: the nearest whole number, of two the even one. <https://onnx.ai/onnx/operators/onnx__Round.html>
//!
//! Opsets: 11, 22 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Round", &[11, 22], |_| unary(Tensor::f_round))
    .without_gradient()
    .shapes(rules::same_as_first);
