//! `BitShift`: a shifted by b bits in `direction`, element by element, with broadcasting.
//! <https://onnx.ai/onnx/operators/onnx__BitShift.html>
//!
//! Opsets: 11. Refused: uint64.

use tch::Tensor;

use crate::Error;
use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("BitShift", &[11], |p| match p.node.text("direction", "")? {
    "LEFT" => binary(p, Tensor::f_bitwise_left_shift),
    "RIGHT" => binary(p, Tensor::f_bitwise_right_shift),
    other => Err(Error::user(format!("`direction` = \"{other}\" is not LEFT or RIGHT"))),
})
.limits("uint64")
.without_gradient()
.shapes(rules::broadcast);
