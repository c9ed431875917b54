//! `Or`: whether a or b is true, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Or.html>
//!
//! Opsets: 1 (broadcasting at an `axis` and where asked for), 7 (as NumPy).

use tch::Tensor;

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Or", &[1, 7], |p| binary(p, Tensor::f_logical_or))
    .without_gradient()
    .shapes(rules::broadcast);
