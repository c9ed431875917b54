//! `Sin`: the sine. <https://onnx.ai/onnx/operators/onnx__Sin.html>
//!
//! Opsets: 7, 22 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Sin", &[7, 22], |_| unary(Tensor::f_sin)).shapes(rules::same_as_first);
