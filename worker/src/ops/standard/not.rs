//! `Not`: the opposite of each truth value. <https://onnx.ai/onnx/operators/onnx__Not.html>
//!
//! Opsets: 1.

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Not", &[1], |_| unary(Tensor::f_logical_not)).without_gradient().shapes(rules::not);
