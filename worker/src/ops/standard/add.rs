//! `Add`: a + b, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Add.html>
//!
//! Opsets: 1 and 6 (broadcasting at an `axis` and where asked for), 7 (as NumPy), 13 (bfloat16), 14 (small integers).

use tch::Tensor;

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Add", &[1, 6, 7, 13, 14], |p| binary(p, Tensor::f_add)).shapes(rules::add);
