//! `PRelu`: x, or `slope` x where x is negative (He et al. 2015, <https://arxiv.org/abs/1502.01852>).
//! <https://onnx.ai/onnx/operators/onnx__PRelu.html>
//!
//! Opsets: 1 and 6 (one slope, or one a channel), 7 (broadcast to x), 9 (integers), 16 (bfloat16).

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

/// `[N, C, …]` and slope to `[N, C, …]`.
pub const OP: Op = Op::new("PRelu", &[1, 6, 7, 9, 16], |prepare| {
    let per_channel = prepare.opset < 7;
    single(move |a| {
        let (x, slope) = (a.get(0)?, a.get(1)?);
        let mut shape = slope.size();
        if per_channel && shape.len() == 1 && x.dim() > 2 {
            shape.resize(x.dim() - 1, 1);
        }
        let scaled = x.f_mul(&slope.f_reshape(&shape)?)?;
        if scaled.size() != x.size() {
            return Err(Error::user(format!(
                "a slope of shape {shape:?} does not broadcast to {:?}",
                x.size()
            )));
        }
        Ok(x.f_where_self(&x.f_ge(0.0)?, &scaled)?)
    })
})
.shapes(rules::same_as_first);
