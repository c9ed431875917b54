//! `Mish`: x tanh(ln(1 + eˣ)) (Misra 2019, <https://arxiv.org/abs/1908.08681>). <https://onnx.ai/onnx/operators/onnx__Mish.html>
//!
//! Opsets: 18, 22 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Mish", &[18, 22], |_| unary(Tensor::f_mish)).shapes(rules::same_as_first);
