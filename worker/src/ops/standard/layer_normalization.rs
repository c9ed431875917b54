//! `LayerNormalization` over the axes from `axis` on (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>
//!
//! Opsets: 17; also its outputs of mean and inverse standard deviation. Of `stash_type`, float32 and the input's own are taken.

use tch::Tensor;

use crate::ops::kernel::{Kernel, Op, Prepare, axis_from_front};
use crate::ops::normalization::Stash;
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("LayerNormalization", &[17], prepare).shapes(rules::layer_normalization);

/// `[…]` to `[…]`, and the mean and the inverse standard deviation, whose axes from `axis` on are of extent 1.
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let axis = prepare.node.int("axis", -1)?;
    let epsilon = f64::from(prepare.node.float("epsilon", 1e-5)?);
    let stash = Stash::of(prepare)?;
    Ok(Box::new(move |a| {
        let input = a.get(0)?;
        let axis = axis_from_front(axis, input.dim())? as usize;
        let shape = input.size()[axis..].to_vec();
        let (kind, wide) = (input.kind(), stash.kind(input));
        let x = input.f_to_kind(wide)?;
        // Scale and shift may be of fewer axes: they broadcast.
        let part = |index| {
            a.optional(index)
                .map(|part| Ok::<_, Error>(part.f_expand(&shape, false)?.f_contiguous()?))
                .transpose()
        };
        let (scale, shift) = (part(1)?, part(2)?);
        if wide == kind {
            let (output, mean, inverse_deviation) =
                x.f_native_layer_norm(&shape, scale.as_ref(), shift.as_ref(), epsilon)?;
            return Ok(vec![output, mean, inverse_deviation]);
        }
        let (normal, mean, inverse_deviation) =
            x.f_native_layer_norm::<Tensor>(&shape, None, None, epsilon)?;
        let mut output = normal.f_to_kind(kind)?;
        if let Some(scale) = scale {
            output = output.f_mul(&scale)?;
        }
        if let Some(shift) = shift {
            output = output.f_add(&shift)?;
        }
        Ok(vec![output, mean, inverse_deviation])
    }))
}
