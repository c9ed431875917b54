//! Along axes: reductions, positions of extrema, normalizations with statistics.

use super::super::Extent;
use super::super::fact::{Asked, Fact, Moved, axis_of};
use super::produce::product;
use crate::Result;

/// A reduction whose axes are an input since opset 13: ReduceSum.
pub fn reduce_13(asked: &Asked) -> Result<Vec<Fact>> {
    reduce(asked, 13)
}

/// A reduction whose axes are an input since opset 18.
pub fn reduce_18(asked: &Asked) -> Result<Vec<Fact>> {
    reduce(asked, 18)
}

/// ReduceProd, of a vector with its elements.
pub fn reduce_product(asked: &Asked) -> Result<Vec<Fact>> {
    let mut facts = reduce(asked, 18)?;
    let one = facts[0]
        .shape
        .as_ref()
        .is_some_and(|shape| shape.iter().all(|extent| extent.number() == Some(1)));
    if one && asked.shape(0).is_some_and(|shape| shape.len() == 1) {
        facts[0].elements = asked.elements(0).and_then(product).map(|product| vec![product]);
    }
    Ok(facts)
}

fn reduce(asked: &Asked, moved: i64) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let keep = asked.node.int("keepdims", 1)? != 0;
    let axes = match asked.moved("axes", 1, moved)? {
        Moved::Unknown if keep => return Ok(vec![asked.of_rank(0, shape.len())]),
        Moved::Unknown => return Ok(vec![Fact::default()]),
        Moved::Absent => Vec::new(),
        Moved::Known(axes) => axes,
    };
    if axes.is_empty() && asked.node.int("noop_with_empty_axes", 0)? != 0 {
        return Ok(vec![Fact::shaped(shape.to_vec())]);
    }
    let reduced: Vec<usize> = if axes.is_empty() {
        (0..shape.len()).collect()
    } else if shape.is_empty() {
        Vec::new()
    } else {
        axes.iter().map(|&axis| axis_of(axis, shape.len())).collect::<Result<_>>()?
    };
    Ok(vec![Fact::shaped(without(shape, &reduced, keep))])
}

/// `shape` with `axes` of extent 1, or without them.
fn without(shape: &[Extent], axes: &[usize], keep: bool) -> Vec<Extent> {
    let each = shape.iter().enumerate().filter_map(|(axis, extent)| match axes.contains(&axis) {
        false => Some(extent.clone()),
        true => keep.then(|| 1.into()),
    });
    each.collect()
}

/// ArgMax, ArgMin.
pub fn arg(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let keep = asked.node.int("keepdims", 1)? != 0;
    let axis = axis_of(asked.node.int("axis", 0)?, shape.len())?;
    Ok(vec![Fact::shaped(without(shape, &[axis], keep))])
}

/// LayerNormalization: the output, the mean and the inverse of the deviation.
pub fn layer_normalization(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(Vec::new()) };
    let axis = axis_of(asked.node.int("axis", -1)?, shape.len())?;
    let axes: Vec<usize> = (axis..shape.len()).collect();
    let statistics = Fact::shaped(without(shape, &axes, true));
    Ok(vec![Fact::shaped(shape.to_vec()), statistics.clone(), statistics])
}
