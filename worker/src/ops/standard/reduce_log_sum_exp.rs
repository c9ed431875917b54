//! `ReduceLogSumExp`: the logarithm of the sum of eˣ, without overflow along axes. <https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (bfloat16), 18 (`axes` become an input).

use crate::ops::kernel::Op;
use crate::ops::reduction::{of_floats, reduce};
use crate::shapes::rules;

pub const OP: Op = Op::new("ReduceLogSumExp", &[1, 11, 13, 18], |p| {
    reduce(p, 18, |x, axes, keep| of_floats(x, |x| Ok(x.f_logsumexp(axes, keep)?)))
})
.shapes(rules::reduce_18);
