//! `Relu`: max(x, 0). <https://onnx.ai/onnx/operators/onnx__Relu.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 13 (bfloat16), 14 (integers).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Relu", &[1, 6, 13, 14], |_| unary(Tensor::f_relu)).shapes(rules::same_as_first);
