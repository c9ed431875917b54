//! `RMSNormalization`: x / √(mean of x² + `epsilon`) scale, over the axes from `axis` on (Zhang and Sennrich 2019,
//! <https://arxiv.org/abs/1910.07467>). <https://onnx.ai/onnx/operators/onnx__RMSNormalization.html>
//!
//! Opsets: 23. Of `stash_type`, float32 and the input's own are taken.

use crate::ops::kernel::{Op, axis_from_front, single};
use crate::ops::normalization::Stash;
use crate::shapes::rules;

pub const OP: Op = Op::new("RMSNormalization", &[23], |prepare| {
    let axis = prepare.node.int("axis", -1)?;
    let epsilon = f64::from(prepare.node.float("epsilon", 1e-5)?);
    let stash = Stash::of(prepare)?;
    single(move |a| {
        let x = a.get(0)?;
        let axes: Vec<i64> = (axis_from_front(axis, x.dim())?..x.dim() as i64).collect();
        let normal = stash.run(x, |x| {
            let mean = x.f_mul(x)?.f_mean_dim(&axes[..], true, None)?;
            Ok(x.f_mul(&mean.f_add_scalar(epsilon)?.f_rsqrt()?)?)
        })?;
        Ok(normal.f_mul(a.get(1)?)?)
    })
})
.shapes(rules::same_as_first);
