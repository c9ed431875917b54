//! Layers with a weight.

use std::collections::HashSet;

use qpipe::stages::insert_qdq::Target;

use super::idle;
use super::moved::{Weight, barrier, carried, scales};
use super::table::Found;
use super::view::PairView;
use crate::graph::Node;
use crate::quant::placement::{has_one_scale, is_stack, one_scale_serves, output_axis};

/// Scales of a layer's weight, and their axis from the front, as the layer reads it.
fn weight_scales(view: &PairView, layer: &Node) -> Option<(usize, Option<i64>)> {
    let weight = view.weight(layer)?;
    let dequantize = weight.dequantize?;
    // Blocks divide the input channels.
    if dequantize.int("block_size", 0).ok()? != 0 {
        return None;
    }
    let count = view.parameters(dequantize)?.0.len();
    Some((count, weight.axis(view, dequantize.int("axis", 1).ok()?)))
}

/// The axis of a layer's output channels in its weight, and how many there are.
fn channels(view: &PairView, layer: &Node) -> Option<(i64, i64)> {
    let shape = view.weight(layer)?.shape(view)?;
    let axis = output_axis(layer, shape.len() as i64)?;
    Some((axis, *shape.get(usize::try_from(axis).ok()?)?))
}

/// Weights of several channels with one scale.
pub(super) fn per_tensor<'a>(view: &PairView<'a>) -> Found<'a> {
    let nodes = view.graph.nodes.iter();
    nodes
        .filter_map(|node| {
            let (scales, channels) = if view.is_layer(node) {
                if takes_one_scale(view, node) {
                    return None;
                }
                (weight_scales(view, node)?.0, channels(view, node)?.1)
            } else {
                integer_scales(view, node)?
            };
            let found = scales == 1 && channels > 1;
            found.then(|| (node, format!("its weight has one scale for {channels} channels")))
        })
        .collect()
}

/// Whether a layer's weight is a stack of matrices on a runtime whose kernel takes one scale for all of them.
fn takes_one_scale(view: &PairView, layer: &Node) -> bool {
    let shape = || view.weight(layer)?.shape(view);
    // Where all runtimes are asked about, it is one of them.
    matches!(view.target, None | Some(Target::Onnxruntime))
        && shape().is_some_and(|shape| has_one_scale(layer, &shape))
}

/// Quantized products with a stack of matrices that has several scales.
pub(super) fn stack_scales<'a>(view: &PairView<'a>) -> Found<'a> {
    let layers = view.layers().filter(|layer| view.is_integer(layer));
    layers
        .filter_map(|layer| {
            let shape = view.weight(layer)?.shape(view)?;
            let (scales, _) = weight_scales(view, layer)?;
            let found = scales > 1 && has_one_scale(layer, &shape);
            found.then(|| (layer, format!("its weight {shape:?} has {scales} scales")))
        })
        .collect()
}

/// How many scales and output channels the weight of a static operator on integers has; its inputs are value, scale and zero point of
/// the first factor and of the second.
fn integer_scales(view: &PairView, node: &Node) -> Option<(usize, i64)> {
    let weight = view.constant(node.input(3)?)?;
    let axis = match node.op_type.as_str() {
        "QLinearConv" => 0,
        // A stack has one scale.
        "QLinearMatMul" if weight.shape.len() > 2 => return None,
        "QLinearMatMul" => weight.shape.len().checked_sub(1)?,
        "QGemm" => usize::from(node.int("transB", 0).ok()? == 0),
        _ => return None,
    };
    Some((view.constant(node.input(4)?)?.len(), *weight.shape.get(axis)?))
}

/// Scales along another axis than that of the output channels.
pub(super) fn axis<'a>(view: &PairView<'a>) -> Found<'a> {
    let layers = view.layers();
    layers
        .filter_map(|layer| {
            let ((scales, axis), (expected, _)) = (weight_scales(view, layer)?, channels(view, layer)?);
            let axis = axis?;
            let found = scales > 1 && axis != expected;
            found.then(|| (layer, format!("the scales of its weight are along axis {axis}, its output channels along {expected}")))
        })
        .collect()
}

/// Layers of which only input or weight is quantized.
pub(super) fn half<'a>(view: &PairView<'a>) -> Found<'a> {
    // Where no layer's input is quantized, only weights were meant to be.
    let joined = |layer: &Node| layer.input(0).and_then(|name| scales(view, name));
    let weight_only = view.layers().all(|layer| joined(layer).is_none());
    let layers = view.layers();
    let found = layers.filter_map(|layer| match view.quantized(layer) {
        (true, false) if !reads_integers(view, layer) => {
            Some((layer, "its input is quantized, its weight is not".to_owned()))
        }
        (false, true) if !weight_only => {
            let barrier = || layer.input(0).and_then(|name| barrier(view, name));
            let what = match (joined(layer), barrier()) {
                (Some(scales), _) => format!("its weight is quantized, its input is joined of pairs with {scales} scales or zero points"),
                // A convolution in front of it needs the pair that is there: seen of ONNX Runtime 1.32.
                (None, Some(node)) => format!(
                    "its weight is quantized, and between it and the pair of its input stands \"{}\" ({}), over which ONNX Runtime moves no pairs: put the same pair \
                     behind that too, or make it a Reshape, over which it moves them",
                    node.label(),
                    node.op_type
                ),
                (None, None) => "its weight is quantized, its input is not".to_owned(),
            };
            Some((layer, what))
        }
        _ => None,
    });
    found.chain(half_products(view)).collect()
}

/// Products of two computed values of which one is quantized.
fn half_products<'a>(view: &PairView<'a>) -> Found<'a> {
    let products = view.graph.nodes.iter().filter(|node| node.op_type == "MatMul");
    products
        .filter_map(|node| {
            let computed = |index: usize| {
                let value = carried(view, node.input(index)?);
                (Weight::of(view, value).is_none()).then_some(view.is_quantized(value))
            };
            let which = match (computed(0)?, computed(1)?) {
                (true, false) => "first",
                (false, true) => "second",
                _ => return None,
            };
            Some((
                node,
                format!("of its two factors, both computed, the {which} alone is quantized"),
            ))
        })
        .collect()
}

/// Whether the integers that a float layer reads are there anyway: ONNX Runtime's integer kernels write integers, whoever reads them.
fn reads_integers(view: &PairView, layer: &Node) -> bool {
    if view.target != Some(Target::Onnxruntime) {
        return false;
    }
    let mut value = layer.input(0).and_then(|name| view.behind(carried(view, name)));
    // Activations are part of the kernel before.
    while let Some(node) = value.and_then(|value| view.producer(value)) {
        if !["Relu", "Clip"].contains(&node.op_type.as_str()) {
            let mut computed = node.inputs.iter().filter(|name| !view.is_constant(name));
            return view.is_integer(node)
                || !view.is_layer(node) && computed.any(|name| view.dequantize(name).is_some());
        }
        value = node.input(0);
    }
    false
}

/// The nearest layers on all ways back from a value.
pub(super) fn before<'a>(view: &PairView<'a>, value: &'a str) -> Vec<&'a Node> {
    let (mut open, mut seen, mut found) = (vec![value], HashSet::new(), Vec::new());
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        match view.producer(value) {
            Some(node) if view.is_layer(node) => found.push(node),
            Some(node) => open.extend(node.inputs.iter().map(String::as_str)),
            None => {}
        }
    }
    found
}

/// Whether the runtime has an integer kernel of a layer where it stands: without, it is float for a reason.
fn has_integer_kernel(view: &PairView, layer: &Node) -> bool {
    let target = view.target;
    match layer.op_type.as_str() {
        "ConvTranspose" => !matches!(target, Some(Target::TensorrtRtx | Target::Onnxruntime)),
        // Its kernel writes integers only, and outputs are float.
        "Conv" => target != Some(Target::Onnxruntime) || !gives_output(view, layer),
        "Gemm" => layer.int("transA", 0).is_ok_and(|turned| turned == 0),
        "MatMul" => {
            let Some(weight) = view.weight(layer) else { return true };
            let stack = |shape: &[i64]| {
                let data = view.constant(weight.constant);
                target == Some(Target::Onnxruntime)
                    && is_stack(layer, shape)
                    && data.is_some_and(|data| one_scale_serves(data) == Ok(true))
            };
            weight.shape(view).is_none_or(|shape| shape.len() == 2 || stack(&shape))
        }
        _ => true,
    }
}

/// Whether a layer makes an output of the graph, itself or by the activation that is part of its kernel.
fn gives_output(view: &PairView, layer: &Node) -> bool {
    let Some(value) = layer.outputs.first() else { return false };
    let [reader] = view.readers(value)[..] else { return view.graph.is_output(value) };
    let fused = ["Relu", "Clip"].contains(&reader.op_type.as_str());
    view.graph.is_output(value)
        || fused && reader.outputs.iter().any(|output| view.graph.is_output(output))
}

/// Float layers whose input comes from integer layers only, and whose output goes to some.
pub(super) fn island<'a>(view: &PairView<'a>) -> Found<'a> {
    let mut islands = Vec::new();
    // For each layer those right before it.
    let layers: Vec<(&Node, Vec<&Node>)> = view
        .layers()
        .map(|layer| (layer, layer.input(0).map(|input| before(view, input)).unwrap_or_default()))
        .collect();
    for (layer, previous) in &layers {
        let is_float = match view.quantized(layer) {
            (reads, false) => {
                (!reads || reads_integers(view, layer)) && has_integer_kernel(view, layer)
            }
            _ => false,
        };
        let from_integers =
            !previous.is_empty() && previous.iter().all(|node| view.is_integer(node));
        let next = layers.iter().find(|(other, before)| {
            view.is_integer(other) && before.iter().any(|node| std::ptr::eq(*node, *layer))
        });
        if let (true, true, Some((next, _))) = (is_float, from_integers, next) {
            let what = format!(
                "is float between \"{}\" and \"{}\", which are int8",
                previous[0].label(),
                next.label()
            );
            islands.push((*layer, what));
        }
    }
    islands.extend(idle::pools(view));
    islands
}
