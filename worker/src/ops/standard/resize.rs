//! `Resize`: interpolation to other lengths of axes. <https://onnx.ai/onnx/operators/onnx__Resize.html>
//!
//! Opsets: 10 (by scales only), 11 (sizes, coordinates, cubic), 13, 18 (`antialias`, `axes`,
//! `keep_aspect_ratio_policy`), 19 (half_pixel_symmetric). All modes; any rank. As the standard says,
//! a length is the floor of scale times length, in float32 as runtimes compute it. Corners are aligned by the length
//! before it is rounded, as in the standard's cases; ONNX Runtime takes the rounded one.

use tch::Tensor;

use crate::ops::interpolation::{Axis, Coordinates, Filter, Method, Rounding, resize};
use crate::ops::kernel::{Arguments, Few, Kernel, Op, Prepare, axis_from_front, single};
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("Resize", &[10, 11, 13, 18, 19], |prepare| {
    if prepare.opset < 11 { prepare_10(prepare) } else { prepare_11(prepare) }
})
.shapes(rules::resize);

/// Opset 10: places are x / scale; the nearest is that below, of a smaller output that above.
fn prepare_10(prepare: &Prepare) -> Result<Kernel> {
    let linear = match prepare.node.text("mode", "nearest")? {
        "nearest" => false,
        "linear" => true,
        other => return Err(Error::user(format!("`mode` = {other} is not defined"))),
    };
    let scales = Few::new(prepare, 1);
    single(move |a| {
        let input = a.get(0)?;
        let axes = by_scales(input, &floats(a, &scales)?.unwrap_or_default(), None, &[])?;
        let resize_one = |x: &Tensor, axis: &Axis| {
            let rounding = if axis.scale < 1.0 { Rounding::Ceil } else { Rounding::Floor };
            let filter = if linear { Filter::Linear } else { Filter::Nearest(rounding) };
            let method = Method {
                coordinates: Coordinates::Asymmetric,
                filter,
                exclude_outside: false,
                antialias: false,
                extrapolation: 0.0,
            };
            resize(x, std::slice::from_ref(axis), &method)
        };
        axes.iter().try_fold(input.shallow_clone(), |x, axis| resize_one(&x, axis))
    })
}

#[derive(Clone, Copy)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

fn prepare_11(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let undefined =
        |name: &str, value: &str| Error::user(format!("`{name}` = {value} is not defined"));
    let method = method(prepare)?;
    let axes = node.ints("axes")?.map(<[i64]>::to_vec);
    let policy = match node.text("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => Policy::Stretch,
        "not_larger" => Policy::NotLarger,
        "not_smaller" => Policy::NotSmaller,
        other => return Err(undefined("keep_aspect_ratio_policy", other)),
    };
    let [roi, scales] = [1, 2].map(|index| Few::new(prepare, index));
    single(move |a| {
        let input = a.get(0)?;
        let roi = if method.coordinates == Coordinates::CropAndResize {
            floats(a, &roi)?.ok_or_else(|| Error::user("input `roi` is missing"))?
        } else {
            Vec::new()
        };
        let axes = match (floats(a, &scales)?, a.ints(3)?.filter(|sizes| !sizes.is_empty())) {
            (Some(scales), None) => by_scales(input, &scales, axes.as_deref(), &roi)?,
            (None, Some(sizes)) => by_sizes(input, &sizes, axes.as_deref(), &roi, policy)?,
            _ => {
                return Err(Error::user("one of `scales` and `sizes` must be given, and only one"));
            }
        };
        resize(input, &axes, &method)
    })
}

fn method(prepare: &Prepare) -> Result<Method> {
    let node = prepare.node;
    let undefined =
        |name: &str, value: &str| Error::user(format!("`{name}` = {value} is not defined"));
    let rounding = match node.text("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(undefined("nearest_mode", other)),
    };
    let filter = match node.text("mode", "nearest")? {
        "nearest" => Filter::Nearest(rounding),
        "linear" => Filter::Linear,
        "cubic" => Filter::Cubic(f64::from(node.float("cubic_coeff_a", -0.75)?)),
        other => return Err(undefined("mode", other)),
    };
    let coordinates = match node.text("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "asymmetric" => Coordinates::Asymmetric,
        "align_corners" => Coordinates::AlignCorners,
        "tf_crop_and_resize" => Coordinates::CropAndResize,
        // Only opset 11 had it.
        "tf_half_pixel_for_nn" => Coordinates::HalfPixelForNearest,
        other => return Err(undefined("coordinate_transformation_mode", other)),
    };
    Ok(Method {
        coordinates,
        filter,
        exclude_outside: node.int("exclude_outside", 0)? != 0,
        antialias: node.int("antialias", 0)? != 0 && !matches!(filter, Filter::Nearest(_)),
        extrapolation: f64::from(node.float("extrapolation_value", 0.0)?),
    })
}

/// An input, where it is neither left out nor empty.
pub(super) fn floats(a: &Arguments, few: &Few) -> Result<Option<Vec<f32>>> {
    let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    Ok(few.of(a)?.filter(|values| !values.is_empty()).map(single))
}

/// The axes that values are given for: all, or those named.
fn named(input: &Tensor, count: usize, axes: Option<&[i64]>) -> Result<Vec<usize>> {
    let rank = input.dim();
    let named: Vec<usize> = match axes {
        None => (0..rank).collect(),
        Some(axes) => {
            let front = axes.iter().map(|&axis| Ok(axis_from_front(axis, rank)? as usize));
            front.collect::<Result<_>>()?
        }
    };
    let twice = |(index, axis): (usize, &usize)| named[..index].contains(axis);
    if named.len() != count || named.iter().enumerate().any(twice) {
        return Err(Error::user(format!(
            "{count} scales or sizes for axes {named:?} of a tensor of rank {rank}"
        )));
    }
    Ok(named)
}

/// An axis; `index` and `count` say where its part of the region of interest is.
fn axis(
    input: &Tensor,
    axis: usize,
    (output, scale): (i64, f64),
    roi: &[f32],
    (index, count): (usize, usize),
) -> Result<Axis> {
    let roi = match (roi.get(index), roi.get(count + index)) {
        (Some(&begin), Some(&end)) if roi.len() == 2 * count => (f64::from(begin), f64::from(end)),
        _ if roi.is_empty() => (0.0, 1.0),
        _ => return Err(Error::user(format!("a `roi` of {} values for {count} axes", roi.len()))),
    };
    Ok(Axis { axis, input: input.size()[axis], output, scale, roi })
}

pub(super) fn by_scales(
    input: &Tensor,
    scales: &[f32],
    axes: Option<&[i64]>,
    roi: &[f32],
) -> Result<Vec<Axis>> {
    let (size, count) = (input.size(), scales.len());
    let pairs = named(input, count, axes)?.into_iter().zip(scales).enumerate();
    pairs
        .map(|(index, (place, &scale))| {
            let output = (size[place] as f32 * scale).floor() as i64;
            axis(input, place, (output, f64::from(scale)), roi, (index, count))
        })
        .collect()
}

fn by_sizes(
    input: &Tensor,
    sizes: &[i64],
    axes: Option<&[i64]>,
    roi: &[f32],
    policy: Policy,
) -> Result<Vec<Axis>> {
    let (size, count) = (input.size(), sizes.len());
    let named = named(input, count, axes)?;
    let scale = |index: usize| sizes[index] as f64 / size[named[index]] as f64;
    let all = (0..count).map(scale);
    let common = match policy {
        Policy::Stretch => None,
        Policy::NotLarger => all.reduce(f64::min),
        Policy::NotSmaller => all.reduce(f64::max),
    };
    (0..count)
        .map(|index| {
            let place = named[index];
            let (output, scale) = match common {
                None => (sizes[index], scale(index)),
                Some(common) => ((common * size[place] as f64 + 0.5).floor() as i64, common),
            };
            axis(input, place, (output, scale), roi, (index, count))
        })
        .collect()
}
