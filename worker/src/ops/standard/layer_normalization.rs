//! `LayerNormalization` over the axes from `axis` on (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>
//!
//! Opsets: 17; also its outputs of mean and inverse standard deviation.

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front};

pub const OP: Op = Op::new("LayerNormalization", &[17], |prepare| {
    let axis = prepare.node.int("axis", -1)?;
    let epsilon = f64::from(prepare.node.float("epsilon", 1e-5)?);
    Ok(Box::new(move |a| {
        let input = a.get(0)?;
        let axis = axis_from_front(axis, input.dim())? as usize;
        let shape = input.size()[axis..].to_vec();
        // Scale and shift may be of fewer axes: they broadcast.
        let part = |index| {
            a.optional(index)
                .map(|part| Ok::<_, Error>(part.f_expand(&shape, false)?.f_contiguous()?))
                .transpose()
        };
        let (scale, shift) = (part(1)?, part(2)?);
        let (output, mean, inverse_deviation) =
            input.f_native_layer_norm(&shape, scale.as_ref(), shift.as_ref(), epsilon)?;
        Ok(vec![output, mean, inverse_deviation])
    }))
});
