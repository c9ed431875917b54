//! Pairs and the operators around them.

use qpipe::stages::insert_qdq::Target;

use super::table::Found;
use super::view::PairView;
use crate::graph::Node;

/// Operators that runtimes fuse into the layer before them.
const ACTIVATIONS: [&str; 2] = ["Relu", "Clip"];

/// More of TensorRT, which computes them in float behind the sums. ONNX Runtime's convolutions write integers, and read them again: of an activation
/// it drops what cuts values off alone, and no normalization is folded into a weight that has a pair.
const FLOAT_ACTIVATIONS: [&str; 9] = [
    "LeakyRelu",
    "BatchNormalization",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Mish",
    "Gelu",
    "Tanh",
    "Elu",
];

/// Pairs between a layer and the activation, normalization or bias that would be fused into it.
pub(super) fn blocked<'a>(view: &PairView<'a>) -> Found<'a> {
    let in_float = view.target != Some(Target::Onnxruntime);
    let nodes = view.graph.nodes.iter();
    nodes
        .filter_map(|node| {
            let op = node.op_type.as_str();
            let (name, gate) = match op {
                _ if ACTIVATIONS.contains(&op) => (node.input(0)?, None),
                _ if in_float && FLOAT_ACTIVATIONS.contains(&op) => (node.input(0)?, None),
                "Mul" if in_float => gated(view, node)?,
                "Add" | "Sum" if in_float => (biased(view, node)?, None),
                _ => return None,
            };
            let value = view.behind(name)?;
            let layer = view.producer(value).filter(|node| view.is_layer(node))?;
            // Others may want the value before the activation.
            let own = |reader: &&Node| {
                [Some(node), gate].into_iter().flatten().any(|own| std::ptr::eq(own, *reader))
            };
            let alone =
                view.readers_behind_pairs(value).iter().all(own) && !view.graph.is_output(value);
            alone.then(|| (node, format!("a pair stands between \"{}\" and it", layer.label())))
        })
        .collect()
}

/// The value that a multiplication gates with its own sigmoid, behind a pair or not, and that sigmoid: SiLU, or HardSwish from its parts.
fn gated<'a>(view: &PairView<'a>, node: &'a Node) -> Option<(&'a str, Option<&'a Node>)> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    [(a, b), (b, a)].into_iter().find_map(|(value, gate)| {
        let gate = view.producer(view.behind(gate).unwrap_or(gate))?;
        let gates = ["Sigmoid", "HardSigmoid"].contains(&gate.op_type.as_str());
        // Each of the two may read a pair of its own.
        let own = gate.input(0).map(|input| view.behind(input).unwrap_or(input));
        (gates && own == view.behind(value)).then_some((value, Some(gate)))
    })
}

/// The value that an addition adds a constant to.
fn biased<'a>(view: &PairView, node: &'a Node) -> Option<&'a str> {
    let [a, b] = addends(node)?;
    let is_constant = |name: &str| view.is_constant(name) || from_constants(view, name);
    match (is_constant(a), is_constant(b)) {
        (false, true) => Some(a),
        (true, false) => Some(b),
        _ => None,
    }
}

/// The values of an addition of two, also where it is written as Sum.
fn addends(node: &Node) -> Option<[&str; 2]> {
    match &node.inputs[..] {
        [a, b] if ["Add", "Sum"].contains(&node.op_type.as_str()) => Some([a, b]),
        _ => None,
    }
}

/// The layer whose addition would be fused: the only reader of a layer's output, behind a pair or not.
fn fusable<'a>(view: &PairView<'a>, value: &str) -> Option<&'a Node> {
    let layer = view.producer(value).filter(|node| view.is_layer(node))?;
    (view.readers(value).len() == 1).then_some(layer)
}

/// Residual additions of two computed values: each input's name, and the value behind its pair.
fn additions<'a>(view: &PairView<'a>) -> Vec<(&'a Node, [&'a str; 2])> {
    let computed = |name: &&str| !view.is_constant(name) && !from_constants(view, name);
    let nodes = view.graph.nodes.iter();
    let adds = nodes.filter_map(|node| Some((node, addends(node)?)));
    adds.filter(|(_, values)| values.iter().all(computed)).collect()
}

/// Whether a value is a dequantized constant.
fn from_constants(view: &PairView, name: &str) -> bool {
    view.behind(name).is_some_and(|value| view.is_constant(value))
}

/// Additions both of whose inputs are quantized, one of them a layer's output that would be fused.
pub(super) fn fused_branch<'a>(view: &PairView<'a>) -> Found<'a> {
    additions(view)
        .into_iter()
        .filter_map(|(add, names)| {
            let [a, b] = names.map(|name| view.behind(name));
            let (a, b) = (a?, b?);
            // Of two layers the one with more layers behind it is the main branch.
            let deeper = if view.depth(a) >= view.depth(b) { [a, b] } else { [b, a] };
            let layer = deeper.into_iter().find_map(|value| fusable(view, value))?;
            Some((
                add,
                format!("both inputs are quantized, also the output of \"{}\"", layer.label()),
            ))
        })
        .collect()
}

/// Additions of an integer layer's output whose other input is not quantized.
pub(super) fn identity<'a>(view: &PairView<'a>) -> Found<'a> {
    additions(view)
        .into_iter()
        .filter_map(|(add, names)| {
            // Scores may be masked by the least of all floats, which no scale has room for.
            let is_masked = || {
                let mut readers = add.outputs.iter().flat_map(|sum| view.readers(sum));
                readers.any(|reader| reader.op_type == "Softmax")
            };
            if names.iter().any(|name| view.dequantize(name).is_some()) || is_masked() {
                return None;
            }
            let layer = names
                .iter()
                .find_map(|name| fusable(view, name).filter(|layer| view.is_integer(layer)))?;
            Some((add, format!("\"{}\" is int8, the other input is not quantized", layer.label())))
        })
        .collect()
}

/// Concatenations, and the pairs of their inputs: `None` where an input has none.
fn concats<'a>(view: &PairView<'a>) -> impl Iterator<Item = (&'a Node, Vec<Option<&'a Node>>)> {
    let concats = view.graph.nodes.iter().filter(|node| node.op_type == "Concat");
    concats.map(|node| (node, node.inputs.iter().map(|name| view.dequantize(name)).collect()))
}

/// Concatenations whose inputs are quantized with different scales.
pub(super) fn concat_scales<'a>(view: &PairView<'a>) -> Found<'a> {
    concats(view)
        .filter_map(|(node, pairs)| {
            let pairs = pairs.into_iter().collect::<Option<Vec<&Node>>>()?;
            let scale = |pair| view.parameters(pair)?.0.first().copied();
            let mut scales: Vec<f32> = pairs.into_iter().filter_map(scale).collect();
            scales.sort_by(f32::total_cmp);
            scales.dedup();
            let (least, most) = (*scales.first()?, *scales.last()?);
            (scales.len() > 1).then(|| {
                (node, format!("its inputs have {} scales, {least} to {most}", scales.len()))
            })
        })
        .collect()
}

/// Concatenations some of whose inputs are quantized, and the output: where it is not, they join what is float with integers that a layer wrote.
pub(super) fn concat_half<'a>(view: &PairView<'a>) -> Found<'a> {
    // ONNX Runtime's kernel writes integers only: one that makes an output of the graph is float.
    let in_float = |node: &Node| {
        view.target == Some(Target::Onnxruntime)
            && node.outputs.iter().any(|output| view.graph.is_output(output))
    };
    concats(view)
        .filter(|(node, _)| !in_float(node))
        .filter_map(|(node, pairs)| {
            let known = pairs.iter().flatten().count();
            let output = view.readers(node.outputs.first()?);
            let quantized = output.iter().any(|reader| reader.op_type == "QuantizeLinear");
            (quantized && (1..pairs.len()).contains(&known)).then(|| {
                (
                    node,
                    format!("{known} of its {} inputs are quantized, and its output", pairs.len()),
                )
            })
        })
        .collect()
}

/// Operators that move elements of a quantized value, and whose outputs are quantized otherwise, or not all of them.
pub(super) fn moving_scale<'a>(view: &PairView<'a>) -> Found<'a> {
    let nodes = view.graph.nodes.iter().enumerate().filter(|(index, _)| view.moves(*index));
    // A part that nobody reads, or that leaves the graph in float, has no pair to give.
    let is_lost = |name: &String| view.graph.is_output(name) || view.readers(name).is_empty();
    let nodes = nodes.filter(|(_, node)| !node.outputs.iter().any(is_lost));
    // ONNX Runtime has no kernel of it that moves integers.
    let nodes = nodes.filter(|(_, node)| node.op_type != "GlobalMaxPool");
    nodes
        .filter_map(|(_, node)| {
            let own = view.parameters(view.dequantize(node.input(0)?)?)?;
            let outputs = node.outputs.iter().filter(|name| !name.is_empty());
            let readers: Vec<Vec<&Node>> = outputs.map(|name| view.readers(name)).collect();
            let quantizes = |node: &&&Node| node.op_type == "QuantizeLinear";
            let pairs: Vec<&Node> = readers.iter().flatten().filter(quantizes).copied().collect();
            let whole = |readers: &&Vec<&Node>| !readers.is_empty() && readers.iter().all(|node| quantizes(&node));
            let known = readers.iter().filter(whole).count();
            if pairs.is_empty() {
                return None;
            }
            let what = if known < readers.len() {
                format!("{known} of its {} outputs are read as integers only, and its input is integers", readers.len())
            } else {
                let other = pairs.into_iter().find_map(|pair| view.parameters(pair).filter(|other| *other != own))?;
                let (from, to) = (own.0.first()?, other.0.first()?);
                format!("its input has scale {from} and zero point {:?}, its output {to} and {:?}", own.1, other.1)
            };
            Some((node, what))
        })
        .collect()
}
