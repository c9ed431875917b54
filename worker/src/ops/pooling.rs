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

/// Moves the ends so that windows begin and end where the padded input does; with `ceil` the last one, cut off by
/// the end, counts too, unless it begins beyond the input and its begin padding.
///
/// Gives by how much the ends moved.
pub fn fit(placed: &mut Placed, size: &[i64], kernel: &[i64], ceil: bool) -> Result<Vec<i64>> {
    let mut moved = vec![0; kernel.len()];
    for axis in 0..kernel.len() {
        let stride = placed.strides[axis];
        let reach = (kernel[axis] - 1) * placed.dilations[axis] + 1;
        let begun = size[axis + 2] + placed.begin[axis];
        let room = begun + placed.end[axis] - reach;
        if room < 0 {
            return Err(Error::user(format!(
                "a window of {reach} over an axis of {} with pads of {} and {}",
                size[axis + 2],
                placed.begin[axis],
                placed.end[axis]
            )));
        }
        let mut steps = if ceil { (room + stride - 1) / stride } else { room / stride };
        if ceil && steps * stride >= begun {
            steps -= 1;
        }
        moved[axis] = steps * stride - room;
        placed.end[axis] += moved[axis];
    }
    Ok(moved)
}

/// The sum over each window, of `[N, C, spatial…]` without padding.
pub fn window_sum(x: &Tensor, kernel: &[i64], placed: &Placed) -> Result<Tensor> {
    let strides = &placed.strides;
    let zeros = vec![0; kernel.len()];
    if placed.dilations.iter().any(|&dilation| dilation != 1) {
        // libtorch averages over dense windows only: each channel convolved with ones.
        let size = x.size();
        let mut shape = vec![size[0] * size[1], 1];
        shape.extend(&size[2..]);
        let mut ones = vec![1, 1];
        ones.extend(kernel);
        let ones = Tensor::f_ones(ones, (x.kind(), x.device()))?;
        let (dilations, none) = (&placed.dilations, None::<&Tensor>);
        let sums = x
            .f_reshape(shape)?
            .f_convolution(&ones, none, strides, &zeros, dilations, false, &zeros, 1)?;
        let mut shape = size[..2].to_vec();
        shape.extend(&sums.size()[2..]);
        return Ok(sums.f_reshape(shape)?);
    }
    let mean = match kernel.len() {
        1 => x.f_avg_pool1d(kernel, strides, zeros, false, true)?,
        2 => x.f_avg_pool2d(kernel, strides, zeros, false, true, None)?,
        _ => x.f_avg_pool3d(kernel, strides, zeros, false, true, None)?,
    };
    Ok(mean.f_mul_scalar(kernel.iter().product::<i64>())?)
}

/// The axes of space of `[N, C, spatial…]`.
pub fn spatial_axes(input: &Tensor) -> Result<Vec<i64>> {
    if input.dim() < 3 {
        return Err(Error::user(format!("input of shape {:?} has no space", input.size())));
    }
    Ok((2..input.dim() as i64).collect())
}
