//! `ReduceL2`: the root of the sum of squares along axes. <https://onnx.ai/onnx/operators/onnx__ReduceL2.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (bfloat16), 18 (`axes` become an input).

use crate::ops::kernel::Op;
use crate::ops::reduction::{norm, of_floats, reduce};
use crate::shapes::rules;

pub const OP: Op = Op::new("ReduceL2", &[1, 11, 13, 18], |p| {
    reduce(p, 18, |x, axes, keep| of_floats(x, |x| norm(x, 2.0, axes, keep)))
})
.shapes(rules::reduce_18);
