//! libtorch's own kernels, where they compute what is asked for.

use tch::{Kind, Tensor};

use super::method::{Axis, Coordinates, Filter, Method};
use super::weights;
use crate::Result;

/// `None`: no kernel of libtorch computes this.
pub fn resize(x: &Tensor, axes: &[Axis], method: &Method) -> Result<Option<Tensor>> {
    let rank = x.dim();
    let float = matches!(x.kind(), Kind::Float | Kind::Double);
    let spatial = (3..=5).contains(&rank) && axes.iter().all(|axis| axis.axis >= 2);
    let antialiased = method.antialias && axes.iter().any(|axis| axis.scale < 1.0);
    let cropped = method.coordinates == Coordinates::CropAndResize;
    let empty = x.numel() == 0 || axes.iter().any(|axis| axis.output == 0);
    if !float || !spatial || antialiased || cropped || empty {
        return Ok(None);
    }
    let size = x.size();
    let (mut output, mut scales) = (size[2..].to_vec(), vec![1.0; rank - 2]);
    for axis in axes {
        output[axis.axis - 2] = axis.output;
        scales[axis.axis - 2] = axis.scale;
    }
    let aligned = method.coordinates == Coordinates::AlignCorners;
    Ok(match method.filter {
        Filter::Nearest(_) if axes.iter().all(|axis| is_floor(axis, method)) => Some(match rank {
            3 => x.f_upsample_nearest1d(output, scales[0])?,
            4 => x.f_upsample_nearest2d(output, scales[0], scales[1])?,
            _ => x.f_upsample_nearest3d(output, scales[0], scales[1], scales[2])?,
        }),
        Filter::Linear if axes.iter().all(|axis| is_pytorchs(axis, method)) => Some(match rank {
            3 => x.f_upsample_linear1d(output, aligned, scales[0])?,
            4 => x.f_upsample_bilinear2d(output, aligned, scales[0], scales[1])?,
            _ => x.f_upsample_trilinear3d(output, aligned, scales[0], scales[1], scales[2])?,
        }),
        #[expect(clippy::float_cmp, reason = "libtorch has this parameter and no other")]
        Filter::Cubic(a)
            if rank == 4
                && a == -0.75
                && !method.exclude_outside
                && axes.iter().all(|axis| is_pytorchs(axis, method)) =>
        {
            Some(x.f_upsample_bicubic2d(output, aligned, scales[0], scales[1])?)
        }
        _ => None,
    })
}

/// Whether the elements taken are those at floor(x / scale), in libtorch's arithmetic.
fn is_floor(axis: &Axis, method: &Method) -> bool {
    let Filter::Nearest(rounding) = method.filter else { return false };
    let step = (1.0 / axis.scale) as f32;
    let last = axis.input - 1;
    let taken = weights::nearest(method.coordinates, rounding, axis);
    (0..axis.output).zip(taken).all(|(x, taken)| ((x as f32 * step) as i64).min(last) == taken)
}

/// Whether libtorch's places, with half pixels or aligned corners, are the standard's.
fn is_pytorchs(axis: &Axis, method: &Method) -> bool {
    match method.coordinates {
        Coordinates::HalfPixel => true,
        Coordinates::PytorchHalfPixel => axis.output > 1,
        Coordinates::HalfPixelSymmetric | Coordinates::AlignCorners => axis.is_exact(),
        Coordinates::Asymmetric | Coordinates::HalfPixelForNearest | Coordinates::CropAndResize => {
            false
        }
    }
}
