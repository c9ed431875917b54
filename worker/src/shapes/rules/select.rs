//! Parts of a tensor, by bounds, by indices or by value.

use super::super::Extent;
use super::super::fact::{Asked, Fact, Moved, axis_of};
use super::produce::numbers;
use crate::Result;

/// Slice; of vectors with their elements.
pub fn slice(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let unknown = || vec![asked.of_rank(0, shape.len())];
    let bounds = |name: &str, index: usize| -> Result<Option<Vec<Extent>>> {
        if asked.opset < 10 {
            return Ok(asked
                .node
                .ints(name)?
                .map(|values| values.iter().map(|&value| value.into()).collect()));
        }
        Ok(asked.elements(index).map(<[Extent]>::to_vec))
    };
    let (Some(starts), Some(ends)) = (bounds("starts", 1)?, bounds("ends", 2)?) else {
        return Ok(unknown());
    };
    let count = starts.len() as i64;
    let axes = match asked.moved("axes", 3, 10)? {
        Moved::Absent => (0..count).collect(),
        Moved::Known(axes) => axes,
        Moved::Unknown => return Ok(unknown()),
    };
    let steps = match (asked.opset >= 10 && asked.has(4), asked.ints(4)) {
        (false, _) => vec![1; starts.len()],
        (true, Some(steps)) => steps,
        (true, None) => return Ok(unknown()),
    };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Ok(unknown());
    }
    let mut made = shape.to_vec();
    for (index, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, shape.len())?;
        let extent = length(&made[axis], &starts[index], &ends[index], steps[index]);
        made[axis] = asked.or_free(extent, 0, axis);
    }
    let elements = || {
        let mut elements = asked.elements(0)?.to_vec();
        let mut extents = numbers(shape)?;
        for (index, &axis) in axes.iter().enumerate() {
            let axis = axis_of(axis, shape.len()).ok()?;
            let bounds = (starts[index].number()?, ends[index].number()?, steps[index]);
            (elements, extents[axis]) = taken(&elements, &extents, axis, bounds)?;
        }
        Some(elements)
    };
    Ok(vec![Fact { shape: Some(made), elements: elements() }])
}

/// How long `start..end` is in an axis of `extent`.
fn length(extent: &Extent, start: &Extent, end: &Extent, step: i64) -> Option<Extent> {
    let bounds = (extent.number(), start.number(), end.number());
    if let (Some(extent), Some(start), Some(end)) = bounds {
        let (first, end) = bounds_of(extent, start, end, step)?;
        let way = if step > 0 { end - first } else { first - end };
        let step = step.checked_abs()?;
        return Some(((way.max(0) + step - 1) / step).into());
    }
    let (start, step_is_one) = (start.number()?, step == 1);
    // All, from the begin to beyond any end.
    if start == 0
        && step_is_one
        && (end == extent || end.number().is_some_and(|end| end >= i64::from(i32::MAX)))
    {
        return Some(extent.clone());
    }
    None
}

/// Bounds from the front, in 0…extent, or for negative steps in -1…extent - 1.
fn bounds_of(extent: i64, start: i64, end: i64, step: i64) -> Option<(i64, i64)> {
    let from_front = |bound: i64| if bound < 0 { bound.saturating_add(extent) } else { bound };
    match step {
        0 => None,
        1.. => Some((from_front(start).clamp(0, extent), from_front(end).clamp(0, extent))),
        _ => Some((from_front(start).clamp(-1, extent - 1), from_front(end).clamp(-1, extent - 1))),
    }
}

/// The elements, row by row, whose place along `axis` lies in the bounds, and how many places there are.
fn taken(
    elements: &[Extent],
    extents: &[usize],
    axis: usize,
    (start, end, step): (i64, i64, i64),
) -> Option<(Vec<Extent>, usize)> {
    let (first, end) = bounds_of(extents[axis] as i64, start, end, step)?;
    let mut places = Vec::new();
    let mut at = first;
    while if step > 0 { at < end } else { at > end } {
        places.push(usize::try_from(at).ok()?);
        at = at.checked_add(step)?;
    }
    let inner: usize = extents[axis + 1..].iter().product();
    let rows = elements.chunks_exact((extents[axis] * inner).max(1));
    let taken = rows.flat_map(|row| {
        places.iter().flat_map(move |&place| &row[place * inner..(place + 1) * inner])
    });
    Some((taken.cloned().collect(), places.len()))
}

/// Gather; from vectors with their elements.
pub fn gather(asked: &Asked) -> Result<Vec<Fact>> {
    let (Some(data), Some(indices)) = (asked.shape(0), asked.shape(1)) else {
        return Ok(vec![Fact::default()]);
    };
    let axis = axis_of(asked.node.int("axis", 0)?, data.len())?;
    let mut shape = data[..axis].to_vec();
    shape.extend_from_slice(indices);
    shape.extend_from_slice(&data[axis + 1..]);
    let elements = || {
        let (elements, indices) = (asked.elements(0)?, asked.ints(1)?);
        let from_front = |index: i64| if index < 0 { index + elements.len() as i64 } else { index };
        let at = |&index: &i64| elements.get(usize::try_from(from_front(index)).ok()?).cloned();
        indices.iter().map(at).collect()
    };
    let elements = if data.len() == 1 && indices.len() <= 1 { elements() } else { None };
    Ok(vec![Fact { shape: Some(shape), elements }])
}

/// GatherElements: the shape of the indices.
pub fn gather_elements(asked: &Asked) -> Result<Vec<Fact>> {
    Ok(vec![Fact { elements: None, ..asked.inputs.get(1).cloned().unwrap_or_default() }])
}

/// GatherND.
pub fn gather_nd(asked: &Asked) -> Result<Vec<Fact>> {
    let (Some(data), Some(indices)) = (asked.shape(0), asked.shape(1)) else {
        return Ok(vec![Fact::default()]);
    };
    let stacked = usize::try_from(asked.node.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let Some((depth, before)) = indices.split_last() else { return Ok(vec![Fact::default()]) };
    let depth = depth.number().and_then(|depth| usize::try_from(depth).ok());
    let rest = depth.and_then(|depth| data.get(stacked.checked_add(depth)?..));
    Ok(vec![rest.map_or_else(Fact::default, |rest| Fact::shaped([before, rest].concat()))])
}

/// TopK: values and indices.
pub fn top_k(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(Vec::new()) };
    let axis = axis_of(asked.node.int("axis", -1)?, shape.len())?;
    let k = if asked.opset < 10 {
        Some(asked.node.int("k", -1)?.into())
    } else {
        asked.elements(1).and_then(|k| k.first().cloned())
    };
    let made = |output: usize| {
        let mut made = shape.to_vec();
        made[axis] = asked.or_free(k.clone(), output, axis);
        Fact::shaped(made)
    };
    Ok(vec![made(0), made(1)])
}

/// OneHot.
pub fn one_hot(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(indices) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let axis = axis_of(asked.node.int("axis", -1)?, indices.len() + 1)?;
    let depth = asked.elements(1).and_then(|depth| depth.first().cloned());
    let mut shape = indices.to_vec();
    shape.insert(axis, asked.or_free(depth, 0, axis));
    Ok(vec![Fact::shaped(shape)])
}

/// NonZero: `[rank, found]`.
pub fn non_zero(asked: &Asked) -> Result<Vec<Fact>> {
    let rank = asked.shape(0).map(|shape| Extent::from((shape.len() as i64).max(1)));
    Ok(vec![Fact::shaped(vec![asked.or_free(rank, 0, 0), asked.free(0, 1)])])
}

/// NonMaxSuppression: `[found, 3]`.
pub fn non_max_suppression(asked: &Asked) -> Result<Vec<Fact>> {
    Ok(vec![Fact::shaped(vec![asked.free(0, 0), 3.into()])])
}
