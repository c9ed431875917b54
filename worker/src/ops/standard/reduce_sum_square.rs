//! `ReduceSumSquare`: the sum of squares along axes. <https://onnx.ai/onnx/operators/onnx__ReduceSumSquare.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (bfloat16), 18 (`axes` become an input).

use crate::ops::kernel::Op;
use crate::ops::reduction::{reduce, sum};
use crate::shapes::rules;

pub const OP: Op = Op::new("ReduceSumSquare", &[1, 11, 13, 18], |p| {
    reduce(p, 18, |x, axes, keep| sum(&x.f_mul(x)?, axes, keep))
})
.shapes(rules::reduce_18);
