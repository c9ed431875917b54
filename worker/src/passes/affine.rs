//! Constants that are multiplied with what a layer gives, or added to it, into its weight and bias: Caffe's Scale is a Mul and an Add of
//! `[C, 1, 1]`, and TensorFlow's bias an Add.

use std::collections::HashMap;

use super::batch_norm::{bias_name, output_axis, replace};
use crate::Result;
use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};
use crate::ops::Shapes;

/// Folds each Add, Sub, Mul and Div by a constant for each output channel, or by one for all, into the Conv, ConvTranspose, Gemm, MatMul or
/// BatchNormalization before it, where no one else reads what that gives. The layer's output takes the node's name. An Add behind a MatMul stays, as its bias.
///
/// What belongs to an activation stays too (the first node of HardSigmoid written as Add 3, Clip, Div 6), and what makes an output of the
/// graph of a convolution's: as a layer of integers that has a float node behind it.
///
/// # Errors
/// Constants of another length than their shape.
pub fn fold(model: &mut Model) -> Result<usize> {
    let opaque = |node: &Node| node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)));
    if model.graph.nodes.iter().any(opaque) {
        return Ok(0);
    }
    let mut ranks = ranks(model);
    let graph = &mut model.graph;
    let (mut folded, mut index) = (0, 0);
    while index < graph.nodes.len() {
        let found = found(graph, &ranks, index).map_err(|e| e.at(graph.nodes[index].place()))?;
        let Some((layer, map)) = found else {
            index += 1;
            continue;
        };
        let Some(constants) = folded_constants(graph, &layer, &map)? else {
            index += 1;
            continue;
        };
        let node = graph.nodes.remove(index);
        let last = layer.bias_node.unwrap_or(layer.node);
        let rank = ranks.get(&graph.nodes[last].outputs[0]).copied();
        for (holder, input, data) in constants {
            let fresh = bias_name(&graph.nodes[holder].inputs[1]);
            let holder_inputs = &graph.nodes[holder].inputs;
            let name = holder_inputs.get(input).filter(|name| !name.is_empty()).cloned();
            let name = replace(graph, &name.unwrap_or(fresh), data);
            let inputs = &mut graph.nodes[holder].inputs;
            inputs.resize(inputs.len().max(input + 1), String::new());
            inputs[input] = name;
        }
        ranks.extend(rank.map(|rank| (node.outputs[0].clone(), rank)));
        graph.nodes[last].outputs[0].clone_from(&node.outputs[0]);
        folded += 1;
    }
    super::remove_dead(model)?;
    Ok(folded)
}

/// Ranks of what nodes give, where they are known.
fn ranks(model: &Model) -> HashMap<String, usize> {
    let shapes = Shapes::of_any_batch(model);
    let outputs = model.graph.nodes.iter().flat_map(|node| node.outputs.first());
    outputs.filter_map(|name| Some((name.clone(), shapes.shape(name)?.len()))).collect()
}

/// A layer that constants fold into.
struct Layer {
    node: usize,
    /// The Add behind a MatMul that is its bias.
    bias_node: Option<usize>,
    channels: usize,
    /// Axes of the output behind that of the channels.
    behind: usize,
}

/// `factor · x + shift` for each channel.
struct Affine {
    factor: Vec<f64>,
    shift: Vec<f64>,
}

/// The layer that the node at `index` folds into, and what it does there.
fn found(
    graph: &Graph,
    ranks: &HashMap<String, usize>,
    index: usize,
) -> Result<Option<(Layer, Affine)>> {
    let Some((value, constant, reversed)) = operands(graph, index) else { return Ok(None) };
    let Some(layer) = layer(graph, ranks, index, value)? else { return Ok(None) };
    let producer = &graph.nodes[layer.bias_node.unwrap_or(layer.node)];
    let rank = ranks.get(&producer.outputs[0]).copied().or_else(|| weight_rank(graph, &layer));
    let Some(values) = per_channel(constant, rank, layer.behind, layer.channels)? else {
        return Ok(None);
    };
    let (ones, zeros) = (vec![1.0; layer.channels], vec![0.0; layer.channels]);
    let negated = |values: Vec<f64>| values.into_iter().map(|value| -value).collect();
    let node = &graph.nodes[index];
    let map = match (node.op_type.as_str(), reversed) {
        ("Add", _) => Affine { factor: ones, shift: values },
        ("Sub", false) => Affine { factor: ones, shift: negated(values) },
        ("Sub", true) => Affine { factor: negated(ones), shift: values },
        ("Mul", _) => Affine { factor: values, shift: zeros },
        ("Div", false) => {
            Affine { factor: values.into_iter().map(|value| 1.0 / value).collect(), shift: zeros }
        }
        _ => return Ok(None),
    };
    let product = graph.nodes[layer.node].op_type == "MatMul" && layer.bias_node.is_none();
    let shifts = map.shift.iter().any(|&shift| shift != 0.0) || node.op_type == "Add";
    let stays = (product && shifts)
        || is_of_activation(graph, index)
        || (graph.nodes[layer.node].op_type == "Conv" && makes_output(graph, index));
    Ok((!stays).then_some((layer, map)))
}

/// The computed and the constant operand of a node of two, and whether the constant comes first.
fn operands(graph: &Graph, index: usize) -> Option<(&str, &TensorData, bool)> {
    let node = &graph.nodes[index];
    let known = ["Add", "Sub", "Mul", "Div"].contains(&node.op_type.as_str());
    if !known || !node.domain.is_empty() || node.inputs.len() != 2 || node.outputs.len() != 1 {
        return None;
    }
    let constant = |input: usize| {
        graph.initializers.get(&node.inputs[input]).filter(|data| data.dtype == DType::F32)
    };
    match [constant(0), constant(1)] {
        [None, Some(data)] => Some((&node.inputs[0], data, false)),
        [Some(data), None] => Some((&node.inputs[1], data, true)),
        _ => None,
    }
}

/// The layer that gives `value` to the node at `index` and to no one else.
fn layer(
    graph: &Graph,
    ranks: &HashMap<String, usize>,
    index: usize,
    value: &str,
) -> Result<Option<Layer>> {
    let Some(position) = only_read_from(graph, index, value) else { return Ok(None) };
    let node = &graph.nodes[position];
    if !node.domain.is_empty() {
        return Ok(None);
    }
    let constant = |input: usize| {
        let data = node.input(input).and_then(|name| graph.initializers.get(name));
        data.filter(|data| data.dtype == DType::F32)
    };
    // Of a Gemm it may have rows.
    let each =
        |data: &TensorData| data.len() == 1 || data.shape.last() == Some(&(data.len() as i64));
    let bias = node.input(2).is_none() || constant(2).is_some_and(each);
    let one = |name: &str| node.float(name, 1.0).is_ok_and(|value| value == 1.0);
    let plain = match node.op_type.as_str() {
        "Conv" => bias,
        "ConvTranspose" => bias && node.int("group", 1)? == 1,
        "Gemm" => bias && one("alpha") && one("beta"),
        "MatMul" => constant(1).is_some_and(|data| data.shape.len() == 2),
        "BatchNormalization" => {
            let others = node.outputs.iter().skip(1).all(String::is_empty);
            others && (1..5).all(|input| constant(input).is_some())
        }
        "Add" => return biased_product(graph, position),
        _ => false,
    };
    let Some(weight) = constant(1).filter(|_| plain) else { return Ok(None) };
    let (axis, behind) = match node.op_type.as_str() {
        "BatchNormalization" => match ranks.get(value) {
            Some(&rank) if rank >= 2 => (0, rank - 2),
            _ => return Ok(None),
        },
        "MatMul" => (1, 0),
        _ => (output_axis(node)?, weight.shape.len().saturating_sub(2)),
    };
    let Some(&channels) = weight.shape.get(axis) else { return Ok(None) };
    Ok(Some(Layer { node: position, bias_node: None, channels: channels as usize, behind }))
}

/// The MatMul whose bias the Add at `index` is: of one dimension, an element for each channel.
fn biased_product(graph: &Graph, index: usize) -> Result<Option<Layer>> {
    let Some((value, bias, _)) = operands(graph, index) else { return Ok(None) };
    let Some(position) = only_read_from(graph, index, value) else { return Ok(None) };
    let node = &graph.nodes[position];
    let weight = node.input(1).and_then(|name| graph.initializers.get(name));
    let Some(weight) = weight.filter(|data| data.dtype == DType::F32) else { return Ok(None) };
    let fits = node.op_type == "MatMul"
        && node.domain.is_empty()
        && weight.shape.len() == 2
        && bias.shape == weight.shape[1..];
    let channels = bias.len();
    Ok(fits.then_some(Layer { node: position, bias_node: Some(index), channels, behind: 0 }))
}

/// The node that makes `value`, where the one at `index` alone reads it, once.
pub(super) fn only_read_from(graph: &Graph, index: usize, value: &str) -> Option<usize> {
    let readers = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|name| *name == value);
    if graph.is_output(value) || readers.count() != 1 {
        return None;
    }
    graph.nodes[..index].iter().position(|node| node.outputs.first().is_some_and(|o| o == value))
}

/// A convolution's output has as many axes as its weight, and a Gemm's two.
fn weight_rank(graph: &Graph, layer: &Layer) -> Option<usize> {
    let node = &graph.nodes[layer.node];
    let known = ["Conv", "ConvTranspose", "Gemm"].contains(&node.op_type.as_str());
    known.then(|| graph.initializers[&node.inputs[1]].shape.len())
}

/// The values of a constant for each channel of a value of that rank, behind whose channels that many axes follow; `None` where it has others, or
/// would give the value more axes.
pub(super) fn per_channel(
    data: &TensorData,
    rank: Option<usize>,
    behind: usize,
    channels: usize,
) -> Result<Option<Vec<f64>>> {
    // Whatever a layer gives has an axis.
    if data.shape.len() > rank.unwrap_or(1) {
        return Ok(None);
    }
    let values: Vec<f64> = data.to_f32()?.into_iter().map(f64::from).collect();
    if let [value] = values[..] {
        return Ok(Some(vec![value; channels]));
    }
    let axis = data.shape.len().checked_sub(1 + behind);
    let fits = axis.is_some_and(|axis| {
        let others = data.shape.iter().enumerate().all(|(i, &extent)| i == axis || extent == 1);
        others && data.shape[axis] == channels as i64
    });
    Ok(fits.then_some(values))
}

/// Whether a node begins an activation that is written out: one constant for all elements in front of a Clip, as in HardSigmoid,
/// `clip(x + 3, 0, 6) / 6` and `clip(0.2 x + 0.5, 0, 1)`. A layer's own constants differ by channel.
pub(super) fn is_of_activation(graph: &Graph, index: usize) -> bool {
    let mut index = index;
    loop {
        let node = &graph.nodes[index];
        let single = |name: &String| graph.initializers.get(name).is_some_and(|d| d.len() == 1);
        let linear = ["Add", "Sub", "Mul", "Div"].contains(&node.op_type.as_str());
        if !(linear && node.inputs.iter().any(single)) {
            return ["Clip", "Min", "Max"].contains(&node.op_type.as_str());
        }
        let Some(output) = node.outputs.first() else { return false };
        let mut readers = (index + 1..graph.nodes.len())
            .filter(|&reader| graph.nodes[reader].inputs.contains(output));
        match (readers.next(), readers.next()) {
            (Some(reader), None) => index = reader,
            _ => return false,
        }
    }
}

/// Whether a node gives an output of the graph, itself or by the activation that is fused into a convolution before it.
fn makes_output(graph: &Graph, index: usize) -> bool {
    let output = &graph.nodes[index].outputs[0];
    let fused = |node: &&Node| ["Relu", "Clip"].contains(&node.op_type.as_str());
    let mut readers = graph.nodes.iter().filter(|node| node.inputs.contains(output));
    graph.is_output(output)
        || readers.next().filter(fused).is_some_and(|node| graph.is_output(&node.outputs[0]))
}

/// The constants that the layer's become: which node's, at which input. `None` where a value would not be finite any more.
type Constants = Vec<(usize, usize, TensorData)>;

fn folded_constants(graph: &Graph, layer: &Layer, map: &Affine) -> Result<Option<Constants>> {
    let node = &graph.nodes[layer.node];
    let read = |index: usize, input: usize| -> Option<&TensorData> {
        graph.nodes[index].input(input).and_then(|name| graph.initializers.get(name))
    };
    let weight = read(layer.node, 1);
    let Some(weight) = weight else { return Ok(None) };
    let axis = match node.op_type.as_str() {
        "BatchNormalization" => 0,
        "MatMul" => 1,
        _ => output_axis(node)?,
    };
    let inner: usize = weight.shape[axis + 1..].iter().map(|&extent| extent as usize).product();
    let channel = |element: usize| element / inner.max(1) % layer.channels.max(1);
    let weights: Vec<f32> = weight
        .to_f32()?
        .into_iter()
        .enumerate()
        .map(|(i, value)| (f64::from(value) * map.factor[channel(i)]) as f32)
        .collect();
    let mut constants = Vec::new();
    if map.factor.iter().any(|&factor| factor != 1.0) {
        constants.push((layer.node, 1, TensorData::f32(&weight.shape, &weights)));
    }
    let holder = match layer.bias_node {
        Some(add) => {
            let first = read(add, 0).is_some();
            Some((add, usize::from(!first)))
        }
        None => (node.op_type != "MatMul").then_some((layer.node, 2)),
    };
    let mut shifts = Vec::new();
    if let Some((holder, input)) = holder {
        let old = read(holder, input).map(TensorData::to_f32).transpose()?.unwrap_or_default();
        let old = |c: usize| match old[..] {
            [] => Some(0.0),
            [value] => Some(f64::from(value)),
            _ => old.get(c).copied().map(f64::from),
        };
        for c in 0..layer.channels {
            let Some(old) = old(c) else { return Ok(None) };
            shifts.push((old * map.factor[c] + map.shift[c]) as f32);
        }
        if read(holder, input).is_some() || shifts.iter().any(|&shift| shift != 0.0) {
            let shape = [layer.channels as i64];
            constants.push((holder, input, TensorData::f32(&shape, &shifts)));
        }
    }
    let finite = weights.iter().chain(&shifts).all(|value| value.is_finite());
    Ok(finite.then_some(constants))
}
