//! Operators that only move elements of their first input.

use super::{ONNXRUNTIME_SELECTORS, TENSORRT_GUIDE, integer};
use crate::quant::placement::rule::{Order, Rule, Scene, Verdict};
use crate::quant::placement::{Sites, View};

pub(in super::super) const COMMUTING: Rule = Rule {
    name: "commuting",
    operators: &[
        "MaxPool",
        "GlobalMaxPool",
        "Flatten",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Identity",
        "Dropout",
        "Split",
        "Slice",
    ],
    about: "Max pooling, changes of shape, Split and Slice have no pairs of their own. Where values before and behind them are read quantized, these have one scale, the largest of theirs; the parts that Split and Slice give only behind a convolution: queries, keys and values, parts of one matrix product, keep a scale each.",
    reason: "They commute with rounding: TensorRT moves the next layer's quantization in front of them, and they then move integers. With one scale that quantization is the one which is there already.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: commuting,
};

pub(in super::super) const KEEPS_SCALE: Rule = Rule {
    name: "keeps-scale",
    operators: &[
        "MaxPool",
        "Flatten",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Split",
        "Slice",
        "Resize",
    ],
    about: "Between integers, input and outputs are quantized with the input's range: one constant of the scale for both. Where the input is float they stay float. A Resize counts where its mode is `nearest`; a Split where something reads each of its outputs and none is one of the graph's.",
    reason: "ONNX Runtime drops the pairs around them only where both scales are the same, for a Split those of all outputs; then they move bytes.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: keeps_scale,
};

fn keeps_scale(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let (view, node) = (scene.view, scene.node(index));
    if !view.moves(index) {
        return Verdict::Float("it computes means of its input's elements".to_owned());
    }
    let input = view.activation(index, 0).filter(|input| sites.has(input));
    let Some(input) = input else { return Verdict::Float("its input is float".to_owned()) };
    if !keeps_integers(view, index) {
        return Verdict::Float(
            "it makes an output of the graph, or one that nothing reads".to_owned(),
        );
    }
    sites.read(input, (index, 0));
    if view.divides(index) {
        for output in &node.outputs {
            integer::for_all(view, sites, output);
            sites.kept.insert(output.clone(), input.to_owned());
        }
    } else {
        integer::output(view, sites, index);
    }
    Verdict::Quantized
}

/// Whether ONNX Runtime can move integers through a node: of what divides a value, something reads all parts, quantized.
pub(super) fn keeps_integers(view: &View, index: usize) -> bool {
    let mut outputs = view.graph.nodes[index].outputs.iter();
    let is_read =
        |output: &String| !view.graph.is_output(output) && !view.readers(output).is_empty();
    view.moves(index)
        && (!view.divides(index) || outputs.all(|output| output.is_empty() || is_read(output)))
}

/// Whether TensorRT moves a quantization behind a node in front of it.
pub(super) fn commutes(view: &View, index: usize) -> bool {
    COMMUTING.operators.contains(&view.graph.nodes[index].op_type.as_str())
}

fn commuting(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let view = scene.view;
    for output in &scene.node(index).outputs {
        if !sites.has(output) {
            continue;
        }
        let whole = origin(view, output, output);
        let related = |name: &&String| *name != output && origin(view, output, name) == whole;
        let related: Vec<String> = sites.tensors.keys().filter(related).cloned().collect();
        related.iter().for_each(|name| sites.share(output, name));
    }
    Verdict::Float(
        "it commutes with rounding: TensorRT moves the pair behind it in front".to_owned(),
    )
}

/// The value that `name` has one scale with: behind convolutions, which `output` says, also the whole of which it is a part.
fn origin<'b>(view: &'b View, output: &str, name: &'b str) -> &'b str {
    if view.is_convolved(output) { view.source(name) } else { view.origin(name) }
}
