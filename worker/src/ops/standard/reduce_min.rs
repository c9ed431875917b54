//! `ReduceMin`: the minimum along axes. <https://onnx.ai/onnx/operators/onnx__ReduceMin.html>
//!
//! Opsets: 1, 11 (negative axes), 12 (small integers), 13 (bfloat16), 18 (`axes` become an input), 20 (truth values). Of nothing it is the
//! greatest that the type has.

use crate::ops::kernel::Op;
use crate::ops::reduction::{min, reduce};
use crate::shapes::rules;

pub const OP: Op =
    Op::new("ReduceMin", &[1, 11, 12, 13, 18, 20], |p| reduce(p, 18, min)).shapes(rules::reduce_18);
