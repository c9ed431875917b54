//! `And`: whether a and b are true, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__And.html>
//!
//! Opsets: 1 (broadcasting at an `axis` and where asked for), 7 (as NumPy).

use tch::Tensor;

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("And", &[1, 7], |p| binary(p, Tensor::f_logical_and))
    .without_gradient()
    .shapes(rules::broadcast);
