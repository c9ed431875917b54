//! `ReduceMean`: the mean along axes. <https://onnx.ai/onnx/operators/onnx__ReduceMean.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (bfloat16), 18 (`axes` become an input). PyTorch's newer exporter writes an adaptive average pooling to 1×1 as this.

use crate::ops::kernel::Op;
use crate::ops::reduction::{of_floats, reduce};
use crate::shapes::rules;

pub const OP: Op = Op::new("ReduceMean", &[1, 11, 13, 18], |p| {
    reduce(p, 18, |x, axes, keep| of_floats(x, |x| Ok(x.f_mean_dim(axes, keep, None)?)))
})
.shapes(rules::reduce_18);
