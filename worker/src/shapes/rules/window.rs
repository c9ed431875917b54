//! Convolutions and pooling.

use super::super::Extent;
use super::super::fact::{Asked, Fact, must_equal, shown};
use crate::graph::Node;
use crate::{Error, Result};

/// Conv and ConvInteger: `[N, C, spatial…]`, `[M, C / group, kernel…]` to `[N, M, spatial…]`.
pub fn conv(asked: &Asked) -> Result<Vec<Fact>> {
    convolution(asked, 1)
}

/// QLinearConv: scales and zero points stand between the two.
pub fn qlinear_conv(asked: &Asked) -> Result<Vec<Fact>> {
    convolution(asked, 3)
}

fn convolution(asked: &Asked, weight: usize) -> Result<Vec<Fact>> {
    let (input, weight) = (asked.shape(0), asked.shape(weight));
    let Some(weight) = weight else {
        return Ok(vec![input.map_or_else(Fact::default, |input| asked.of_rank(0, input.len()))]);
    };
    let Some(input) = input else { return Ok(vec![asked.of_rank(0, weight.len())]) };
    if input.len() != weight.len() || input.len() < 3 {
        return Err(Error::user(format!(
            "a weight of shape {} over an input of {}",
            shown(weight),
            shown(input)
        )));
    }
    let groups = asked.node.int("group", 1)?;
    if let Some(channels) = weight[1].times(&groups.into()) {
        must_equal(&channels, &input[1], || {
            format!(
                "a weight of shape {} in {groups} groups takes {channels} channels; its input {} has {}",
                shown(weight),
                shown(input),
                input[1]
            )
        })?;
    }
    let kernel: Option<Vec<i64>> = weight[2..].iter().map(Extent::number).collect();
    let Some(kernel) = kernel else { return Ok(vec![asked.of_rank(0, input.len())]) };
    let spatial = windows(asked, &input[2..], &kernel, false)?;
    let mut shape = vec![input[0].clone(), weight[0].clone()];
    shape.extend(spatial);
    Ok(vec![Fact::shaped(shape)])
}

/// MaxPool, AveragePool, LpPool, with their indices.
pub fn pool(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(input) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let Some(kernel) = asked.node.ints("kernel_shape")? else {
        return Ok(vec![asked.of_rank(0, input.len())]);
    };
    if kernel.len() + 2 != input.len() {
        return Err(Error::user(format!(
            "a kernel of {} axes over an input of {}",
            kernel.len(),
            shown(input)
        )));
    }
    let ceil = asked.node.int("ceil_mode", 0)? != 0;
    let mut shape = input[..2].to_vec();
    shape.extend(windows(asked, &input[2..], kernel, ceil)?);
    Ok(vec![Fact::shaped(shape.clone()), Fact::shaped(shape)])
}

/// GlobalAveragePool and its like.
pub fn global_pool(asked: &Asked) -> Result<Vec<Fact>> {
    let Some(input) = asked.shape(0) else { return Ok(vec![Fact::default()]) };
    let extents = input
        .iter()
        .enumerate()
        .map(|(axis, extent)| if axis < 2 { extent.clone() } else { 1.into() });
    Ok(vec![Fact::shaped(extents.collect())])
}

fn list(node: &Node, name: &str, count: usize, default: i64) -> Result<Vec<i64>> {
    match node.ints(name)? {
        None => Ok(vec![default; count]),
        Some(values) if values.len() == count => Ok(values.to_vec()),
        Some(values) => Err(Error::user(format!("`{name}` {values:?}, expected {count} values"))),
    }
}

/// How many windows fit along each axis.
fn windows(asked: &Asked, spatial: &[Extent], kernel: &[i64], ceil: bool) -> Result<Vec<Extent>> {
    let (node, rank) = (asked.node, spatial.len());
    let (strides, dilations) = (list(node, "strides", rank, 1)?, list(node, "dilations", rank, 1)?);
    let mode = node.text("auto_pad", "NOTSET")?;
    let pads = if mode == "NOTSET" { list(node, "pads", 2 * rank, 0)? } else { vec![0; 2 * rank] };
    (0..rank)
        .map(|axis| {
            let (input, stride) = (&spatial[axis], strides[axis]);
            if mode.starts_with("SAME") {
                return Ok(asked.or_free(input.ceil_div(stride), 0, axis + 2));
            }
            let reach = kernel[axis]
                .checked_sub(1)
                .and_then(|steps| steps.checked_mul(dilations[axis])?.checked_add(1));
            let (begin, end) = (pads[axis], pads[rank + axis]);
            let room = || input.plus(&begin.into())?.plus(&end.into())?.minus(&reach?.into());
            let room = room();
            if let (Some(reach), Some(number)) = (reach, room.as_ref().and_then(Extent::number))
                && number < 0
            {
                return Err(Error::user(format!(
                    "a window of {reach} over an axis of {input} with pads of {begin} and {end}"
                )));
            }
            let steps = room
                .and_then(|room| if ceil { room.ceil_div(stride) } else { room.floor_div(stride) });
            let count = steps.and_then(|steps| steps.plus(&1.into()));
            let count = if ceil {
                count.and_then(|count| begun(count, input, begin, stride))
            } else {
                count
            };
            Ok(asked.or_free(count, 0, axis + 2))
        })
        .collect()
}

/// With `ceil_mode` a last window that begins behind the input and its begin padding does not count.
fn begun(count: Extent, input: &Extent, begin: i64, stride: i64) -> Option<Extent> {
    let (count, input) = (count.number()?, input.number()?);
    let cut = (count - 1).checked_mul(stride)? >= input.checked_add(begin)?;
    Some((count - i64::from(cut)).into())
}

/// ConvTranspose: `[N, C, spatial…]`, `[C, M / group, kernel…]` to `[N, M, spatial…]`.
pub fn conv_transpose(asked: &Asked) -> Result<Vec<Fact>> {
    let (input, weight) = (asked.shape(0), asked.shape(1));
    let (Some(input), Some(weight)) = (input, weight) else { return Ok(vec![Fact::default()]) };
    if input.len() != weight.len() || input.len() < 3 {
        return Err(Error::user(format!(
            "a weight of shape {} over an input of {}",
            shown(weight),
            shown(input)
        )));
    }
    must_equal(&weight[0], &input[1], || {
        format!(
            "a weight of shape {} over an input of {}: {} channels are expected",
            shown(weight),
            shown(input),
            weight[0]
        )
    })?;
    let node = asked.node;
    let rank = input.len() - 2;
    let channels = weight[1].times(&node.int("group", 1)?.into());
    let mut shape = vec![input[0].clone(), asked.or_free(channels, 0, 1)];
    let mode = node.text("auto_pad", "NOTSET")?;
    let (strides, dilations) = (list(node, "strides", rank, 1)?, list(node, "dilations", rank, 1)?);
    let extra = list(node, "output_padding", rank, 0)?;
    let pads = if mode == "NOTSET" { list(node, "pads", 2 * rank, 0)? } else { vec![0; 2 * rank] };
    let given = node
        .ints("output_shape")?
        .map(|shape| if shape.len() == rank + 2 { &shape[2..] } else { shape });
    for axis in 0..rank {
        let length = || {
            if let Some(given) = given {
                return given.get(axis).map(|&length| length.into());
            }
            let input = &input[axis + 2];
            if mode.starts_with("SAME") {
                return input.times(&strides[axis].into());
            }
            let kernel = weight[axis + 2].minus(&1.into())?.times(&dilations[axis].into())?;
            let whole = input.minus(&1.into())?.times(&strides[axis].into())?.plus(&kernel)?;
            let whole = whole.plus(&extra[axis].checked_add(1)?.into())?;
            whole.minus(&pads[axis].checked_add(pads[rank + axis])?.into())
        };
        shape.push(asked.or_free(length(), 0, axis + 2));
    }
    Ok(vec![Fact::shaped(shape)])
}
