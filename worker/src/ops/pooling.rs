//! What pooling operators share: their windows and what libtorch does by itself.

use tch::Tensor;

use super::kernel::Prepare;
use super::window::Placed;
use crate::{Error, Result};

/// The window's extents, one to three.
pub fn kernel_shape(prepare: &Prepare) -> Result<Vec<i64>> {
    let shape = prepare.node.ints("kernel_shape")?;
    let shape = shape.ok_or_else(|| Error::user("attribute `kernel_shape` is missing"))?;
    if shape.is_empty() || shape.len() > 3 || shape.iter().any(|&extent| extent < 1) {
        return Err(Error::user(format!("`kernel_shape` {shape:?} is not one to three extents")));
    }
    Ok(shape.to_vec())
}

/// Whether libtorch takes the pads itself: alike at both ends, at most half a kernel.
pub fn is_native(placed: &Placed, kernel: &[i64]) -> bool {
    placed.is_symmetric() && placed.begin.iter().zip(kernel).all(|(&pad, &k)| pad <= k / 2)
}

/// Refuses `ceil_mode` where the pads are not libtorch's.
pub fn refuse_ceil(ceil: bool) -> Result<()> {
    if ceil {
        return Err(Error::user(
            "`ceil_mode` with asymmetric pads, or pads of over half a kernel, is not supported",
        ));
    }
    Ok(())
}

/// The axes of space of `[N, C, spatial…]`.
pub fn spatial_axes(input: &Tensor) -> Result<Vec<i64>> {
    if input.dim() < 3 {
        return Err(Error::user(format!("input of shape {:?} has no space", input.size())));
    }
    Ok((2..input.dim() as i64).collect())
}
