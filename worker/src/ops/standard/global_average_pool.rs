//! `GlobalAveragePool`: the mean over all of space, `[N, C, spatial…]` to `[N, C, 1…]`.
//! <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>
//!
//! Opsets: 1, 22 (bfloat16). Any number of spatial axes.

use crate::ops::kernel::{Op, single};
use crate::ops::pooling::spatial_axes;
use crate::shapes::rules;

pub const OP: Op = Op::new("GlobalAveragePool", &[1, 22], |_| {
    single(|a| {
        let input = a.get(0)?;
        Ok(input.f_mean_dim(spatial_axes(input)?, true, None)?)
    })
})
.shapes(rules::global_pool);
