//! `GlobalMaxPool`: the maximum over all of space, `[N, C, spatial…]` to `[N, C, 1…]`.
//! <https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html>
//!
//! Opsets: 1, 22 (bfloat16). Any number of spatial axes.

use crate::ops::kernel::{Op, single};
use crate::ops::pooling::spatial_axes;
use crate::shapes::rules;

pub const OP: Op = Op::new("GlobalMaxPool", &[1, 22], |_| {
    single(|a| {
        let input = a.get(0)?;
        Ok(input.f_amax(spatial_axes(input)?, true)?)
    })
})
.shapes(rules::global_pool);
