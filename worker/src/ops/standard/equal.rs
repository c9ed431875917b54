//! `Equal`: whether a = b, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Equal.html>
//!
//! Opsets: 1 (broadcasting at an `axis` and where asked for), 7 (as NumPy), 11 (floats), 13 (bfloat16), 19 (strings).

use tch::Tensor;

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("Equal", &[1, 7, 11, 13, 19], |p| binary(p, Tensor::f_eq_tensor))
    .limits("strings")
    .without_gradient()
    .shapes(rules::equal);
