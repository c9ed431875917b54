//! The grid of a layer's weight.

use super::bias::integer_bias;
use super::formats::Formats;
use super::grid::Grid;
use super::placement::{Site, TensorPlan};
use crate::graph::{DType, Graph};
use crate::{Error, Result};

/// A bias is a 32-bit integer at scale `activation × weight`: its magnitude may have this many steps. Half
/// of what fits, so that fine-tuning has room.
const BIAS_STEPS: f32 = (1_u32 << 30) as f32;

/// Scales and zero points of the weight that input `site` reads, whose output channels are along `channel_axis`; `tensors` are the values that are
/// quantized.
///
/// # Errors
/// A weight that is not float or not finite.
pub fn grid(
    graph: &Graph,
    tensors: &[TensorPlan],
    formats: &Formats,
    site: Site,
    channel_axis: i64,
) -> Result<Grid> {
    let layer = &graph.nodes[site.0];
    let name = &layer.inputs[site.1];
    let at = |error: Error| error.at(format!("weight \"{name}\""));
    let data = &graph.initializers[name];
    let values = data.to_f32().map_err(at)?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(at(Error::user(format!("element {index} is {}", values[index]))));
    }
    let groups = formats.groups(layer, &data.shape, channel_axis);
    let channels = data.shape[channel_axis as usize] as usize;
    let bias = match input_scale(tensors, site) {
        // Only a layer that is one integer kernel has an integer bias.
        Some(scale)
            if formats.weights.dtype.stored() == DType::I8 && groups.block_size.is_none() =>
        {
            bias(graph, site, channels)?.map(|bias| (bias, scale))
        }
        _ => None,
    };
    let least: Option<Vec<f32>> = bias.map(|(bias, input)| {
        let each: Vec<f32> = bias.iter().map(|b| b.abs() / (input * BIAS_STEPS)).collect();
        match groups.axis {
            Some(_) => each,
            None => vec![each.into_iter().fold(0.0, f32::max)],
        }
    });
    Ok(Grid::of(&values, formats.weights, groups, least.as_deref()))
}

/// The constant bias of a layer, if it has one value a channel.
fn bias(graph: &Graph, site: Site, channels: usize) -> Result<Option<Vec<f32>>> {
    let layer = &graph.nodes[site.0];
    let data = integer_bias(graph, layer).map(|(_, data)| data);
    let Some(data) = data.filter(|data| data.len() == channels) else { return Ok(None) };
    data.to_f32().map(Some).map_err(|error| error.at(layer.place()))
}

/// Scale of the integers that the layer reads.
fn input_scale(tensors: &[TensorPlan], site: Site) -> Option<f32> {
    let reads = |tensor: &&TensorPlan| tensor.sites.contains(&(site.0, 0));
    let tensor = tensors.iter().find(reads)?;
    matches!(tensor.scheme.dtype, DType::I8 | DType::U8).then_some(tensor.scale)
}
