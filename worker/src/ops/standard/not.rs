//! `Not`: the opposite of each truth value. <https://onnx.ai/onnx/operators/onnx__Not.html>
//!
//! Opsets: 1.

use crate::ops::kernel::{Op, single};

pub const OP: Op =
    Op::new("Not", &[1], |_| single(|a| Ok(a.get(0)?.f_logical_not()?))).without_gradient();
