//! `ReduceMax`: the maximum along axes. <https://onnx.ai/onnx/operators/onnx__ReduceMax.html>
//!
//! Opsets: 1, 11 (negative axes), 12 (small integers), 13 (bfloat16), 18 (`axes` become an input), 20 (truth values). Of nothing it is the
//! least that the type has.

use crate::ops::kernel::Op;
use crate::ops::reduction::{max, reduce};
use crate::shapes::rules;

pub const OP: Op =
    Op::new("ReduceMax", &[1, 11, 12, 13, 18, 20], |p| reduce(p, 18, max)).shapes(rules::reduce_18);
