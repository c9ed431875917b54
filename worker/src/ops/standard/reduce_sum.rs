//! `ReduceSum`: the sum along axes. <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (`axes` become an input).

use crate::ops::kernel::Op;
use crate::ops::reduction::{reduce, sum};
use crate::shapes::rules;

pub const OP: Op =
    Op::new("ReduceSum", &[1, 11, 13], |p| reduce(p, 13, sum)).shapes(rules::reduce_13);
