//! `ReduceLogSum`: the logarithm of the sum along axes. <https://onnx.ai/onnx/operators/onnx__ReduceLogSum.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (bfloat16), 18 (`axes` become an input).

use crate::ops::kernel::Op;
use crate::ops::reduction::{of_floats, reduce, sum};
use crate::shapes::rules;

pub const OP: Op = Op::new("ReduceLogSum", &[1, 11, 13, 18], |p| {
    reduce(p, 18, |x, axes, keep| of_floats(x, |x| Ok(sum(x, axes, keep)?.f_log()?)))
})
.shapes(rules::reduce_18);
