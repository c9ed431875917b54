//! `GroupNormalization`: per sample and group of channels, (x − mean) / √(variance + `epsilon`) scale + bias (Wu and He 2018,
//! <https://arxiv.org/abs/1803.08494>). <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html>
//!
//! Opsets: 18 (scale and bias per group), 21 (per channel; `stash_type`, of which float32 and the input's own are taken).

use tch::Tensor;

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::normalization::Stash;
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("GroupNormalization", &[18, 21], prepare).shapes(rules::same_as_first);

/// `[N, C, …]`, and scale and bias of `[C]`, or before opset 21 of `[num_groups]`, to `[N, C, …]`.
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let groups = prepare.node.int("num_groups", 0)?;
    if groups < 1 {
        return Err(Error::user(format!("`num_groups` = {groups}")));
    }
    let epsilon = f64::from(prepare.node.float("epsilon", 1e-5)?);
    let per_group = prepare.opset < 21;
    let stash = Stash::of(prepare)?;
    single(move |a| {
        let x = a.get(0)?;
        let channels = *x.size().get(1).ok_or_else(|| Error::user("the input has no channels"))?;
        if channels % groups != 0 {
            return Err(Error::user(format!("{channels} channels in {groups} groups")));
        }
        let (scale, bias) = (a.get(1)?, a.get(2)?);
        if !per_group && stash.kind(x) == x.kind() {
            return Ok(x.f_group_norm(groups, Some(scale), Some(bias), epsilon, true)?);
        }
        let normal =
            stash.run(x, |x| Ok(x.f_group_norm::<Tensor>(groups, None, None, epsilon, true)?))?;
        let mut shape = vec![1; x.dim() - 1];
        shape[0] = channels;
        let along = |parameter: &Tensor| {
            let each = if per_group { channels / groups } else { 1 };
            let parameter = parameter.f_repeat_interleave_self_int(each, 0, None)?;
            Ok::<_, Error>(parameter.f_reshape(&shape)?)
        };
        Ok(normal.f_mul(&along(scale)?)?.f_add(&along(bias)?)?)
    })
}
