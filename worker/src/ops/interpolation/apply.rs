//! Weights to tensors: each axis for itself, as a selection or a matrix product, through which gradients flow.

use tch::{Kind, Tensor};

use super::method::{Axis, Coordinates, Filter, Method};
use super::{native, weights};
use crate::{Error, Result};

/// Most weights of an axis, 8 bytes each.
const MOST_WEIGHTS: i64 = 1 << 28;

/// Resizes `axes` of a tensor of any rank and type; integers are rounded and saturated.
///
/// # Errors
/// Lengths and scales that no image has.
pub fn resize(x: &Tensor, axes: &[Axis], method: &Method) -> Result<Tensor> {
    axes.iter().try_for_each(Axis::check)?;
    if let Some(resized) = native::resize(x, axes, method)? {
        return Ok(resized);
    }
    general(x, axes, method)
}

/// By the weights alone.
fn general(x: &Tensor, axes: &[Axis], method: &Method) -> Result<Tensor> {
    let kind = x.kind();
    let picks = matches!(method.filter, Filter::Nearest(_));
    let wide = match kind {
        _ if picks => kind,
        Kind::Double | Kind::Int | Kind::Int64 => Kind::Double,
        _ => Kind::Float,
    };
    let mut resized = x.f_to_kind(wide)?;
    for axis in axes {
        resized = match method.filter {
            Filter::Nearest(rounding) => {
                let taken = weights::nearest(method.coordinates, rounding, axis);
                if is_whole(&taken, axis) {
                    continue;
                }
                let taken = Tensor::f_from_slice(&taken)?.f_to_device(x.device())?;
                resized.f_index_select(axis.axis as i64, &taken)?
            }
            Filter::Linear | Filter::Cubic(_) => weighted(&resized, axis, method)?,
        };
    }
    if method.coordinates == Coordinates::CropAndResize {
        resized = extrapolate(&resized, axes, method.extrapolation)?;
    }
    narrow(&resized, kind)
}

/// Whether every element is taken once and in order.
fn is_whole(taken: &[i64], axis: &Axis) -> bool {
    axis.input == axis.output && taken.iter().zip(0..).all(|(&taken, x)| taken == x)
}

fn weighted(x: &Tensor, axis: &Axis, method: &Method) -> Result<Tensor> {
    let (input, output) = (axis.input, axis.output);
    if input * output > MOST_WEIGHTS {
        return Err(Error::user(format!("an axis of {input} resized to {output} is too long")));
    }
    let matrix = weights::matrix(method, axis);
    let own = |(index, &weight): (usize, &f64)| {
        let (row, column) = (index / input.max(1) as usize, index % input.max(1) as usize);
        (weight - f64::from(u8::from(row == column))).abs() < 1e-9
    };
    if input == output && matrix.iter().enumerate().all(own) {
        return Ok(x.shallow_clone());
    }
    let matrix = Tensor::f_from_slice(&matrix)?.f_reshape([output, input])?;
    let matrix = matrix.f_to_kind(x.kind())?.f_to_device(x.device())?.f_transpose(0, 1)?;
    let place = axis.axis as i64;
    Ok(x.f_movedim_int(place, -1)?.f_matmul(&matrix)?.f_movedim_int(-1, place)?)
}

/// Puts the value beyond the input where an element of the output lies there.
fn extrapolate(x: &Tensor, axes: &[Axis], value: f64) -> Result<Tensor> {
    let mut filled = x.shallow_clone();
    for axis in axes {
        let mut shape = vec![1; x.dim()];
        shape[axis.axis] = axis.output;
        let beyond = Tensor::f_from_slice(&weights::beyond(axis))?.f_reshape(shape)?;
        filled = filled.f_masked_fill(&beyond.f_to_device(x.device())?, value)?;
    }
    Ok(filled)
}

fn narrow(x: &Tensor, kind: Kind) -> Result<Tensor> {
    let range = match kind {
        _ if kind == x.kind() => return Ok(x.shallow_clone()),
        Kind::Uint8 => (0, 255),
        Kind::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        Kind::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Kind::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        // The largest integers below 2^63 that a double holds.
        Kind::Int64 => (i64::MIN, i64::MAX - 1023),
        _ => return Ok(x.f_to_kind(kind)?),
    };
    Ok(x.f_round()?.f_clamp(range.0, range.1)?.f_to_kind(kind)?)
}

#[cfg(test)]
mod tests {
    use super::super::method::Rounding;
    use super::*;

    #[test]
    fn libtorchs_kernels_compute_what_the_weights_say() {
        let x = Tensor::arange(2 * 3 * 5 * 6, (Kind::Double, tch::Device::Cpu));
        let x = (x * 1.3).sin().reshape([2, 3, 5, 6]);
        let axis = |axis, input, output| {
            let scale = output as f64 / input as f64;
            Axis { axis, input, output, scale, roi: (0.0, 1.0) }
        };
        let mut native = 0;
        for coordinates in [
            Coordinates::HalfPixel,
            Coordinates::HalfPixelSymmetric,
            Coordinates::PytorchHalfPixel,
            Coordinates::Asymmetric,
            Coordinates::AlignCorners,
        ] {
            for filter in [
                Filter::Nearest(Rounding::Floor),
                Filter::Nearest(Rounding::PreferFloor),
                Filter::Linear,
                Filter::Cubic(-0.75),
                Filter::Cubic(-0.5),
            ] {
                for (height, width) in [(10, 12), (3, 7), (1, 9), (5, 1)] {
                    let method = Method {
                        coordinates,
                        filter,
                        exclude_outside: false,
                        antialias: false,
                        extrapolation: 0.0,
                    };
                    let axes = [axis(2, 5, height), axis(3, 6, width)];
                    let Some(found) = native::resize(&x, &axes, &method).unwrap() else {
                        continue;
                    };
                    native += 1;
                    let expected = general(&x, &axes, &method).unwrap();
                    let close = found.allclose(&expected, 0.0, 1e-6, false);
                    assert!(close, "{method:?} to {height}×{width}");
                }
            }
        }
        assert!(native > 30, "{native} computed by libtorch's kernels");
    }

    #[test]
    fn integers_are_rounded_and_saturated() {
        let x = Tensor::from_slice(&[0_u8, 255, 255, 0]).reshape([1, 1, 4]);
        let axis = Axis { axis: 2, input: 4, output: 8, scale: 2.0, roi: (0.0, 1.0) };
        let method = Method {
            coordinates: Coordinates::HalfPixel,
            filter: Filter::Cubic(-0.75),
            exclude_outside: false,
            antialias: false,
            extrapolation: 0.0,
        };
        let resized = resize(&x, &[axis], &method).unwrap();
        assert_eq!(resized.kind(), Kind::Uint8);
        // Without saturation the overshoot at the bright pixels would wrap round.
        assert_eq!(resized.int64_value(&[0, 0, 3]), 255);
    }
}
