//! `Erf`: the error function. <https://onnx.ai/onnx/operators/onnx__Erf.html>
//!
//! Opsets: 9, 13 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Erf", &[9, 13], |_| unary(Tensor::f_erf)).shapes(rules::same_as_first);
