//! The same elements, laid out, joined, parted or repeated.

use super::super::Extent;
use super::super::fact::{Asked, Fact, Moved, axis_of, must_equal, shown};
use super::elementwise::joined;
use super::produce::{numbers, product};
use crate::{Error, Result};

/// Reshape. A free extent among those that it is given is taken to be no 0, which would copy the input's.
pub fn reshape(asked: &Asked) -> Result<Vec<Fact>> {
    let input = asked.shape(0);
    let wanted: Option<Vec<Extent>> = if asked.opset < 5 {
        asked.node.ints("shape")?.map(|shape| shape.iter().map(|&extent| extent.into()).collect())
    } else {
        asked.elements(1).map(<[Extent]>::to_vec)
    };
    let Some(mut shape) = wanted else {
        let rank = asked
            .shape(1)
            .and_then(|shape| shape.first()?.number())
            .filter(|rank| (0..=64).contains(rank));
        return Ok(vec![rank.map_or_else(Fact::default, |rank| asked.of_rank(0, rank as usize))]);
    };
    let copies = asked.node.int("allowzero", 0)? == 0;
    let mut open = None;
    for (axis, extent) in shape.iter_mut().enumerate() {
        if copies && extent.number() == Some(0) {
            *extent = match input.map(|input| input.get(axis)) {
                Some(Some(own)) => own.clone(),
                Some(None) => {
                    return Err(Error::user(format!(
                        "the shape copies axis {axis} of {}",
                        shown(input.unwrap_or(&[]))
                    )));
                }
                None => asked.free(0, axis),
            };
        } else if extent.number() == Some(-1) {
            open = Some(axis);
        } else if !extent.is_natural() {
            // It may be 0 or -1, which mean something else.
            *extent = asked.free(0, axis);
        }
    }
    let whole = input.and_then(product);
    match open {
        Some(axis) => {
            let others: Vec<Extent> = shape
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != axis)
                .map(|(_, e)| e.clone())
                .collect();
            let others = product(&others);
            if let (Some(whole), Some(others)) = (&whole, &others)
                && let (Some(whole), Some(others)) = (whole.number(), others.number())
                && others != 0
                && whole % others != 0
            {
                return Err(misfit(asked, input, &shape));
            }
            let rest = whole.and_then(|whole| whole.divided(&others?));
            shape[axis] = asked.or_free(rest, 0, axis);
        }
        None => {
            if let (Some(whole), Some(made)) = (&whole, product(&shape)) {
                must_equal(whole, &made, || misfit(asked, input, &shape).message)?;
            }
        }
    }
    Ok(vec![Fact { shape: Some(shape), elements: asked.elements(0).map(<[Extent]>::to_vec) }])
}

fn misfit(asked: &Asked, input: Option<&[Extent]>, shape: &[Extent]) -> Error {
    let to = asked.elements(1).map_or_else(|| shown(shape), shown);
    Error::user(format!(
        "an input of shape {} to the shape {to}",
        input.map_or_else(String::new, shown)
    ))
}

/// Flatten.
pub fn flatten(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![asked.of_rank(0, 2)]) };
    let axis = asked.node.int("axis", 1)?;
    let from_front = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let Some(axis) = usize::try_from(from_front).ok().filter(|&axis| axis <= shape.len()) else {
        return Err(Error::user(format!("axis {axis} of an input of {}", shown(shape))));
    };
    let (rows, columns) = shape.split_at(axis);
    let sides = [rows, columns].into_iter().enumerate();
    Ok(vec![Fact::shaped(
        sides.map(|(side, extents)| asked.or_free(product(extents), 0, side)).collect(),
    )])
}

/// Transpose.
pub fn transpose(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let order: Vec<usize> = match asked.node.ints("perm")? {
        None => (0..shape.len()).rev().collect(),
        Some(perm) if perm.len() == shape.len() => {
            perm.iter().map(|&axis| axis_of(axis, shape.len())).collect::<Result<Vec<_>>>()?
        }
        Some(perm) => {
            return Err(Error::user(format!("`perm` {perm:?} of an input of {}", shown(shape))));
        }
    };
    let elements = asked.elements(0).and_then(|elements| permuted(elements, shape, &order));
    Ok(vec![Fact {
        shape: Some(order.iter().map(|&axis| shape[axis].clone()).collect()),
        elements,
    }])
}

/// Elements of `shape` row by row, after its axes are put into `order`.
fn permuted(elements: &[Extent], shape: &[Extent], order: &[usize]) -> Option<Vec<Extent>> {
    let extents = numbers(shape)?;
    let steps: Vec<usize> =
        (0..extents.len()).map(|axis| extents[axis + 1..].iter().product()).collect();
    let mut places = vec![0];
    for &axis in order {
        places = places
            .iter()
            .flat_map(|&place| (0..extents[axis]).map(move |i| (place, i)))
            .map(|(place, i)| place + i * steps[axis])
            .collect();
    }
    places.into_iter().map(|place| elements.get(place).cloned()).collect()
}

/// Squeeze; a vector of one element stays known as a scalar.
pub fn squeeze(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let removed: Vec<usize> = match asked.moved("axes", 1, 13)? {
        Moved::Unknown => return Ok(vec![Fact::default()]),
        Moved::Known(axes) => {
            axes.iter().map(|&axis| axis_of(axis, shape.len())).collect::<Result<_>>()?
        }
        Moved::Absent => {
            // Which extents are 1 must be known.
            let numbers: Option<Vec<i64>> = shape.iter().map(Extent::number).collect();
            let Some(numbers) = numbers else { return Ok(vec![Fact::default()]) };
            (0..shape.len()).filter(|&axis| numbers[axis] == 1).collect()
        }
    };
    for &axis in &removed {
        must_equal(&shape[axis], &1.into(), || {
            format!("axis {axis} of {} is not of extent 1", shown(shape))
        })?;
    }
    let left = shape
        .iter()
        .enumerate()
        .filter(|(axis, _)| !removed.contains(axis))
        .map(|(_, extent)| extent.clone());
    Ok(vec![Fact {
        shape: Some(left.collect()),
        elements: asked.elements(0).map(<[Extent]>::to_vec),
    }])
}

/// Unsqueeze; a scalar stays known as a vector.
pub fn unsqueeze(asked: &Asked) -> Result<Vec<Fact>> {
    let (Some(shape), Moved::Known(axes)) = (asked.shape(0), asked.moved("axes", 1, 13)?) else {
        return Ok(vec![Fact::default()]);
    };
    let rank = shape.len() + axes.len();
    let added: Vec<usize> = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_>>()?;
    let mut own = shape.iter().cloned();
    let made: Vec<Extent> =
        (0..rank)
            .map(|axis| {
                if added.contains(&axis) {
                    1.into()
                } else {
                    own.next().unwrap_or_else(|| 1.into())
                }
            })
            .collect();
    Ok(vec![Fact { shape: Some(made), elements: asked.elements(0).map(<[Extent]>::to_vec) }])
}

/// Concat; of vectors with their elements.
pub fn concat(asked: &Asked) -> Result<Vec<Fact>> {
    let shapes: Option<Vec<&[Extent]>> =
        (0..asked.inputs.len()).map(|index| asked.shape(index)).collect();
    let Some(shapes) = shapes.filter(|shapes| !shapes.is_empty()) else {
        return Ok(vec![Fact::default()]);
    };
    let axis = axis_of(asked.node.int("axis", 1)?, shapes[0].len())?;
    let mut made = shapes[0].to_vec();
    let mut sum = Some(made[axis].clone());
    for shape in &shapes[1..] {
        if shape.len() != made.len() {
            return Err(Error::user(format!(
                "shapes {} and {} of different ranks",
                shown(shapes[0]),
                shown(shape)
            )));
        }
        for (other, extent) in shape.iter().enumerate().filter(|(other, _)| *other != axis) {
            must_equal(&made[other], extent, || {
                format!("shapes {} and {} differ in axis {other}", shown(shapes[0]), shown(shape))
            })?;
            // What is a number says more.
            if made[other].number().is_none() && extent.number().is_some() {
                made[other] = extent.clone();
            }
        }
        sum = sum.and_then(|sum| sum.plus(&shape[axis]));
    }
    made[axis] = asked.or_free(sum, 0, axis);
    let mut fact = Fact::shaped(made);
    if shapes[0].len() == 1 {
        let parts: Option<Vec<&[Extent]>> =
            (0..asked.inputs.len()).map(|index| asked.elements(index)).collect();
        if let Some(parts) = parts {
            return Ok(vec![Fact::vector(parts.concat())]);
        }
        fact.elements = None;
    }
    Ok(vec![fact])
}

/// Split; of vectors with their elements.
pub fn split(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(Vec::new()) };
    let (axis, parts) =
        (axis_of(asked.node.int("axis", 0)?, shape.len())?, asked.node.outputs.len());
    let moved = if asked.opset == 1 && asked.has(1) { 1 } else { 13 };
    let lengths: Vec<Option<Extent>> = match asked.moved("split", 1, moved)? {
        Moved::Known(lengths) if lengths.len() == parts => {
            if let Some(extent) = shape[axis].number()
                && lengths.iter().try_fold(0_i64, |sum, &length| sum.checked_add(length))
                    != Some(extent)
            {
                return Err(Error::user(format!("lengths {lengths:?} of an axis of {extent}")));
            }
            lengths.into_iter().map(|length| Some(length.into())).collect()
        }
        Moved::Known(lengths) => {
            return Err(Error::user(format!("lengths {lengths:?} for {parts} outputs")));
        }
        Moved::Unknown => vec![None; parts],
        Moved::Absent => match shape[axis].number() {
            Some(extent) => {
                let count = parts.max(1) as i64;
                let whole = (extent + count - 1) / count;
                (0..parts as i64)
                    .map(|part| Some((extent - part * whole).clamp(0, whole).into()))
                    .collect()
            }
            None => vec![shape[axis].divided(&(parts as i64).into()); parts],
        },
    };
    let mut begin = Some(0_usize);
    let facts = lengths.into_iter().enumerate().map(|(part, length)| {
        let number = length.as_ref().and_then(Extent::number).and_then(|n| usize::try_from(n).ok());
        let end = begin.zip(number).and_then(|(begin, number)| begin.checked_add(number));
        let elements = begin
            .zip(end)
            .and_then(|(begin, end)| asked.elements(0)?.get(begin..end).map(<[Extent]>::to_vec));
        begin = end;
        let mut made = shape.to_vec();
        made[axis] = asked.or_free(length, part, axis);
        Fact { shape: Some(made), elements: elements.filter(|_| shape.len() == 1) }
    });
    Ok(facts.collect())
}

/// Expand: the input and a shape broadcast.
pub fn expand(asked: &Asked) -> Result<Vec<Fact>> {
    let (Some(input), Some(shape)) = (asked.shape(0), asked.elements(1)) else {
        return Ok(vec![Fact::default()]);
    };
    let shape: Vec<Extent> = shape.to_vec();
    if shape.iter().any(|extent| !extent.is_natural()) {
        return Ok(vec![asked.of_rank(0, input.len().max(shape.len()))]);
    }
    Ok(vec![Fact::shaped(joined(asked, input, &shape)?)])
}

/// Tile, since opset 6.
pub fn tile(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let Some(repeats) = asked.elements(1) else { return Ok(vec![asked.of_rank(0, shape.len())]) };
    if repeats.len() != shape.len() {
        return Err(Error::user(format!(
            "repeats {} of a tensor of {}",
            shown(repeats),
            shown(shape)
        )));
    }
    let each = shape.iter().zip(repeats).enumerate();
    Ok(vec![Fact::shaped(
        each.map(|(axis, (extent, count))| asked.or_free(extent.times(count), 0, axis)).collect(),
    )])
}

/// Pad.
pub fn pad(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(shape) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let Moved::Known(pads) = asked.moved("pads", 1, 11)? else {
        return Ok(vec![asked.of_rank(0, shape.len())]);
    };
    let axes: Vec<usize> = if asked.has(3) {
        let Some(axes) = asked.ints(3) else { return Ok(vec![asked.of_rank(0, shape.len())]) };
        axes.iter().map(|&axis| axis_of(axis, shape.len())).collect::<Result<_>>()?
    } else {
        (0..shape.len()).collect()
    };
    if pads.len() != 2 * axes.len() {
        return Err(Error::user(format!("{} pads for {} axes", pads.len(), axes.len())));
    }
    let mut made = shape.to_vec();
    for (index, &axis) in axes.iter().enumerate() {
        let more = pads[index].checked_add(pads[axes.len() + index]);
        let extent = more.and_then(|more| made[axis].plus(&more.into()));
        made[axis] = asked.or_free(extent, 0, axis);
    }
    Ok(vec![Fact::shaped(made)])
}

fn block<'a>(asked: &'a Asked) -> Result<Option<(&'a [Extent], i64)>> {
    let block = asked.node.int("blocksize", 0)?;
    match asked.shape(0) {
        None => Ok(None),
        Some(shape) if shape.len() == 4 && block > 0 && block <= 1 << 16 => {
            Ok(Some((shape, block)))
        }
        Some(shape) => {
            Err(Error::user(format!("blocks of {block} in an input of {}", shown(shape))))
        }
    }
}

/// DepthToSpace.
pub fn depth_to_space(asked: &Asked) -> Result<Vec<Fact>> {
    let Some((shape, block)) = block(asked)? else { return Ok(vec![Fact::default()]) };
    let made = [
        Some(shape[0].clone()),
        shape[1].divided(&(block * block).into()),
        shape[2].times(&block.into()),
        shape[3].times(&block.into()),
    ];
    Ok(vec![Fact::shaped(
        made.into_iter().enumerate().map(|(axis, extent)| asked.or_free(extent, 0, axis)).collect(),
    )])
}

/// SpaceToDepth.
pub fn space_to_depth(asked: &Asked) -> Result<Vec<Fact>> {
    let Some((shape, block)) = block(asked)? else { return Ok(vec![Fact::default()]) };
    let made = [
        Some(shape[0].clone()),
        shape[1].times(&(block * block).into()),
        shape[2].divided(&block.into()),
        shape[3].divided(&block.into()),
    ];
    Ok(vec![Fact::shaped(
        made.into_iter().enumerate().map(|(axis, extent)| asked.or_free(extent, 0, axis)).collect(),
    )])
}
