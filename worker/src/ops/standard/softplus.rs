//! `Softplus`: ln(1 + eˣ). <https://onnx.ai/onnx/operators/onnx__Softplus.html>
//!
//! Opsets: 1, 22 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Softplus", &[1, 22], |_| unary(Tensor::f_softplus)).shapes(rules::same_as_first);
