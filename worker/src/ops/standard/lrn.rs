//! `LRN`: x / (`bias` + `alpha` / `size` Σx²)^`beta`, the sum over `size` neighbouring channels (Krizhevsky et al. 2012).
//! <https://onnx.ai/onnx/operators/onnx__LRN.html>
//!
//! Opsets: 1, 13 (bfloat16).

use tch::Tensor;

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("LRN", &[1, 13], prepare).shapes(rules::same_as_first);

/// `[N, C, …]` to the same.
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let size = node.int("size", 0)?;
    if size < 1 {
        return Err(Error::user(format!("`size` = {size} channels")));
    }
    let alpha = f64::from(node.float("alpha", 1e-4)?);
    let beta = f64::from(node.float("beta", 0.75)?);
    let bias = f64::from(node.float("bias", 1.0)?);
    single(move |a| {
        let x: &Tensor = a.get(0)?;
        if x.dim() < 2 {
            return Err(Error::user(format!("input of shape {:?} has no channels", x.size())));
        }
        // libtorch counts pads from the last axis: none of space, then those of the channels.
        let mut pads = vec![0; 2 * (x.dim() - 2)];
        pads.extend([(size - 1) / 2, size / 2]);
        let squares = x.f_mul(x)?.f_constant_pad_nd(pads)?;
        let sum = squares.f_unfold(1, size, 1)?.f_sum_dim_intlist(-1, false, x.kind())?;
        let scale = sum.f_mul_scalar(alpha / size as f64)?.f_add_scalar(bias)?;
        Ok(x.f_div(&scale.f_pow_tensor_scalar(beta)?)?)
    })
}
