//! `HardSwish`: x max(0, min(1, x / 6 + 0.5)). <https://onnx.ai/onnx/operators/onnx__HardSwish.html>
//!
//! Opsets: 14, 22 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("HardSwish", &[14, 22], |_| unary(Tensor::f_hardswish)).shapes(rules::same_as_first);
