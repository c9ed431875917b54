//! Q/DQ pairs into the graph, as a [`Plan`] says.
//!
//! Weights stay float behind their pair, so that they can be fine-tuned; their scales are those of the weights at
//! insertion: the largest magnitude of a channel divided by 127. A channel of zeros takes the largest scale of its
//! weight, since fine-tuning may wake it.

use std::collections::HashMap;

use crate::graph::{Attribute, Graph, Model, Node, TensorData};
use crate::quant::placement::{Plan, TensorPlan, WeightPlan, policy};
use crate::quant::scheme::INT8;
use crate::{Error, Result};

/// Key of the model's metadata that names the runtime whose rules its Q/DQ pairs follow.
pub const TARGET_KEY: &str = "qpipe.target";
/// Key of the model's metadata that names the method whose ranges were taken.
pub const METHOD_KEY: &str = "qpipe.method";

/// A bias is a 32-bit integer at scale `activation × weight`: its magnitude may have this many steps. Half
/// of what fits, so that fine-tuning has room.
const BIAS_STEPS: f32 = (1_u32 << 30) as f32;

/// Inserts the pairs of `plan` into the prepared model that it was made from.
///
/// # Errors
/// A weight that is not float or not finite.
pub fn insert(model: &mut Model, plan: &Plan) -> Result<()> {
    let graph = &mut model.graph;
    let mut before: HashMap<usize, Vec<Node>> = HashMap::new();
    for (name, weights) in by_weight(plan) {
        let first = weights.iter().map(|weight| weight.site.0).min().unwrap_or(0);
        let scales = weight_scales(graph, plan, weights[0])?;
        let channels = scales.len() as i64;
        let shape: &[i64] = if weights[0].axis.is_some() { &[channels] } else { &[] };
        let scale = TensorData::f32(shape, &scales);
        let scale = constant(graph, name, "scale", scale);
        let (nodes, value) =
            pair(graph, name, &scale, INT8.zero_point_data(shape), weights[0].axis);
        for weight in weights {
            graph.nodes[weight.site.0].inputs[weight.site.1].clone_from(&value);
        }
        before.entry(first).or_default().extend(nodes);
    }
    let mut after: HashMap<usize, Vec<Node>> = HashMap::new();
    let mut shared = HashMap::new();
    for tensor in &plan.tensors {
        let producer = graph.producers().get(tensor.tensor.as_str()).copied();
        let nodes = activation_pair(graph, tensor, &mut shared);
        match producer {
            Some(producer) => after.entry(producer).or_default().extend(nodes),
            None => before.entry(0).or_default().splice(0..0, nodes).for_each(drop),
        }
    }
    let nodes = std::mem::take(&mut graph.nodes);
    for (index, node) in nodes.into_iter().enumerate() {
        graph.nodes.extend(before.remove(&index).unwrap_or_default());
        graph.nodes.push(node);
        graph.nodes.extend(after.remove(&index).unwrap_or_default());
    }
    let target = policy(plan.target)?.name;
    model.metadata.insert(TARGET_KEY.to_owned(), target.to_owned());
    model.metadata.insert(METHOD_KEY.to_owned(), plan.method.name().to_owned());
    Ok(())
}

/// The plan's weights, those that several layers read together.
fn by_weight(plan: &Plan) -> Vec<(&str, Vec<&WeightPlan>)> {
    let mut groups: Vec<(&str, Vec<&WeightPlan>)> = Vec::new();
    for weight in &plan.weights {
        let fits = |group: &&mut (&str, Vec<&WeightPlan>)| {
            group.0 == weight.weight && group.1[0].axis == weight.axis
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.1.push(weight),
            None => groups.push((&weight.weight, vec![weight])),
        }
    }
    groups
}

/// Scales of activations by the value whose range they have, and their type.
type Shared<'p> = HashMap<(&'p str, &'static str, u8), String>;

/// The pair of an activation. Values with one range share the constant of their scale, so that training keeps them equal.
fn activation_pair<'p>(
    graph: &mut Graph,
    tensor: &'p TensorPlan,
    shared: &mut Shared<'p>,
) -> Vec<Node> {
    let range_of = tensor.range_of.as_deref().unwrap_or(&tensor.tensor);
    let key = (range_of, tensor.dtype, tensor.zero_point);
    let new = || constant(graph, &tensor.tensor, "scale", TensorData::f32(&[], &[tensor.scale]));
    let scale = shared.entry(key).or_insert_with(new).clone();
    let zero_point = tensor.scheme.zero_point_data(&[]);
    let (nodes, value) = pair(graph, &tensor.tensor, &scale, zero_point, None);
    for &(node, input) in &tensor.sites {
        graph.nodes[node].inputs[input].clone_from(&value);
    }
    nodes
}

/// Adds a constant to the graph; its name.
fn constant(graph: &mut Graph, value: &str, suffix: &str, data: TensorData) -> String {
    let name = graph.fresh_name(&format!("{value}_{suffix}"));
    graph.initializers.insert(name.clone(), data);
    name
}

/// The two nodes of a pair on `name`, their zero point added to the graph, and the value they give.
fn pair(
    graph: &mut Graph,
    name: &str,
    scale_name: &str,
    zero_point: TensorData,
    axis: Option<i64>,
) -> (Vec<Node>, String) {
    let zero_name = constant(graph, name, "zero_point", zero_point);
    let fresh = |suffix: &str| graph.fresh_name(&format!("{name}_{suffix}"));
    let (quantized, dequantized) = (fresh("quantized"), fresh("dequantized"));
    let (quantize, dequantize) = (fresh("quantize"), fresh("dequantize"));
    let mut nodes = vec![
        Node::new(&quantize, "QuantizeLinear", &[name, scale_name, &zero_name], &[&quantized]),
        Node::new(
            &dequantize,
            "DequantizeLinear",
            &[&quantized, scale_name, &zero_name],
            &[&dequantized],
        ),
    ];
    if let Some(axis) = axis {
        for node in &mut nodes {
            node.attributes.insert("axis".to_owned(), Attribute::Int(axis));
        }
    }
    (nodes, dequantized)
}

/// Scales of a weight: one, or one for each channel.
fn weight_scales(graph: &Graph, plan: &Plan, weight: &WeightPlan) -> Result<Vec<f32>> {
    let at = |error: Error| error.at(format!("weight \"{}\"", weight.weight));
    let data = &graph.initializers[&weight.weight];
    let values = data.to_f32().map_err(at)?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(at(Error::user(format!("element {index} is {}", values[index]))));
    }
    let channels = weight.channels as usize;
    let amax = channel_amax(&values, &data.shape, weight.channel_axis as usize);
    let largest = amax.iter().copied().fold(0.0, f32::max);
    let bias = bias(graph, weight, channels)?;
    let input_scale = input_scale(plan, weight);
    let scales = amax.into_iter().enumerate().map(|(channel, amax)| {
        let scale = INT8.scale(amax, largest);
        match (&bias, input_scale) {
            (Some(bias), Some(input)) => scale.max(bias[channel].abs() / (input * BIAS_STEPS)),
            _ => scale,
        }
    });
    let scales: Vec<f32> = scales.collect();
    Ok(match weight.axis {
        Some(_) => scales,
        None => vec![INT8.scale(largest, 0.0).max(scales.into_iter().fold(0.0, f32::max))],
    })
}

/// Largest magnitude of each channel of a tensor along `axis`.
pub(super) fn channel_amax(values: &[f32], shape: &[i64], axis: usize) -> Vec<f32> {
    let channels = shape[axis] as usize;
    let inner: usize = shape[axis + 1..].iter().product::<i64>() as usize;
    let mut amax = vec![0.0_f32; channels];
    for (index, row) in values.chunks(inner.max(1)).enumerate() {
        let channel = &mut amax[index % channels.max(1)];
        *channel = row.iter().fold(*channel, |most, value| most.max(value.abs()));
    }
    amax
}

/// The constant bias of the layer that reads the weight, if it has one value a channel.
fn bias(graph: &Graph, weight: &WeightPlan, channels: usize) -> Result<Option<Vec<f32>>> {
    let layer = &graph.nodes[weight.site.0];
    let has_bias = layer.op_type != "MatMul";
    let data = layer.input(2).filter(|_| has_bias).and_then(|name| graph.initializers.get(name));
    let Some(data) = data.filter(|data| data.len() == channels) else { return Ok(None) };
    data.to_f32().map(Some).map_err(|error| error.at(layer.place()))
}

fn input_scale(plan: &Plan, weight: &WeightPlan) -> Option<f32> {
    let reads = |tensor: &&TensorPlan| tensor.sites.contains(&(weight.site.0, 0));
    plan.tensors.iter().find(reads).map(|tensor| tensor.scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_along_any_axis() {
        let values: Vec<f32> =
            (0..24).map(|i| if i % 2 == 0 { -(i as f32) } else { i as f32 }).collect();
        assert_eq!(channel_amax(&values, &[2, 3, 4], 0), [11.0, 23.0]);
        assert_eq!(channel_amax(&values, &[2, 3, 4], 1), [15.0, 19.0, 23.0]);
        assert_eq!(channel_amax(&values, &[2, 3, 4], 2), [20.0, 21.0, 22.0, 23.0]);
    }
}
