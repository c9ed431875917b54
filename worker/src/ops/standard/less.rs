//! `Less`: whether a < b, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Less.html>
//!
//! Opsets: 1 (broadcasting at an `axis` and where asked for), 7 (as NumPy), 9 (integers), 13 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Less", &[1, 7, 9, 13], |p| binary(p, Tensor::f_lt_tensor))
    .without_gradient()
    .shapes(rules::broadcast);
