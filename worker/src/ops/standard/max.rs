//! `Max`: the greatest of any number of tensors, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Max.html>
//!
//! Opsets: 1 and 6 (shapes alike), 8 (broadcasting), 12 (integers), 13 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::fold;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Max", &[1, 6, 8, 12, 13], |_| fold(Tensor::f_maximum)).shapes(rules::broadcast);
