//! Interpolation.

use super::super::Extent;
use super::super::fact::{Asked, Fact, axis_of, shown};
use crate::{Error, Result};

/// Resize.
pub fn resize(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let unknown = || vec![asked.of_rank(0, shape.len())];
    if asked.opset < 11 {
        let Some(scales) = asked.floats(1) else { return Ok(unknown()) };
        return by_scales(asked, shape, &scales, None);
    }
    let axes: Option<Vec<usize>> = match asked.node.ints("axes")? {
        None => None,
        Some(axes) => {
            Some(axes.iter().map(|&axis| axis_of(axis, shape.len())).collect::<Result<_>>()?)
        }
    };
    let empty = |index: usize| {
        asked.shape(index).is_some_and(|shape| matches!(shape, [n] if n.number() == Some(0)))
    };
    if asked.has(3) && !empty(3) {
        let policy = asked.node.text("keep_aspect_ratio_policy", "stretch")?;
        let Some(sizes) = asked.elements(3).filter(|_| policy == "stretch") else {
            return Ok(unknown());
        };
        let axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
        if sizes.len() != axes.len() {
            return Err(Error::user(format!("sizes {} for axes {axes:?}", shown(sizes))));
        }
        let mut made = shape.to_vec();
        for (&axis, size) in axes.iter().zip(sizes) {
            made[axis] = size.clone();
        }
        return Ok(vec![Fact::shaped(made)]);
    }
    match asked.floats(2) {
        Some(scales) => by_scales(asked, shape, &scales, axes),
        None => Ok(unknown()),
    }
}

/// Upsample.
pub fn upsample(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let scales = if asked.opset < 9 {
        asked.node.floats("scales")?.map(<[f32]>::to_vec)
    } else {
        asked.floats(1)
    };
    match scales {
        Some(scales) => by_scales(asked, shape, &scales, None),
        None => Ok(vec![asked.of_rank(0, shape.len())]),
    }
}

fn by_scales(
    asked: &Asked,
    shape: &[Extent],
    scales: &[f32],
    axes: Option<Vec<usize>>,
) -> Result<Vec<Fact>> {
    let axes = axes.unwrap_or_else(|| (0..shape.len()).collect());
    if axes.len() != scales.len() {
        return Err(Error::user(format!("{} scales for {} axes", scales.len(), axes.len())));
    }
    let mut made = shape.to_vec();
    for (&axis, &scale) in axes.iter().zip(scales) {
        let length = match shape[axis].number() {
            // As it is computed: in float32.
            Some(extent) => Some(((extent as f32 * scale).floor() as i64).into()),
            None if scale >= 1.0 && scale.fract() == 0.0 && scale < 65536.0 => {
                shape[axis].times(&(scale as i64).into())
            }
            None => None,
        };
        made[axis] = asked.or_free(length, 0, axis);
    }
    Ok(vec![Fact::shaped(made)])
}

/// GridSample: `[N, C, spatial…]` at the places of `[N, spatial…, axes]`.
pub fn grid_sample(asked: &Asked) -> Result<Vec<Fact>> {
    let (Some(input), Some(grid)) = (asked.shape(0), asked.shape(1)) else {
        return Ok(vec![Fact::default()]);
    };
    if input.len() < 3 || grid.len() != input.len() {
        return Err(Error::user(format!(
            "a grid of {} for an input of {}",
            shown(grid),
            shown(input)
        )));
    }
    let mut shape = input[..2].to_vec();
    shape.extend_from_slice(&grid[1..grid.len() - 1]);
    Ok(vec![Fact::shaped(shape)])
}
