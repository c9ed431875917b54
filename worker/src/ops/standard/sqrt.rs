//! `Sqrt`: √x. <https://onnx.ai/onnx/operators/onnx__Sqrt.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 13 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Sqrt", &[1, 6, 13], |_| unary(Tensor::f_sqrt)).shapes(rules::same_as_first);
