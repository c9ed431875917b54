//! Concatenations.

use super::{ONNXRUNTIME_SELECTORS, integer, moving};
use crate::quant::placement::rule::{Order, Rule, Scene, Verdict};
use crate::quant::placement::{Sites, View};

pub(in super::super) const ONE_SCALE: Rule = Rule {
    name: "concat-one-scale",
    operators: &["Concat"],
    about: "Where a quantized layer reads it, also behind pooling and changes of shape, all inputs are quantized, and inputs and output have one scale: the largest of theirs. They share one constant, so that training keeps it one.",
    reason: "TensorRT moves the reader's quantization in front of the concatenation. With one scale the inputs' layers write their integers right into the result; with several, each is scaled anew.",
    source: "https://github.com/NVIDIA/TensorRT-Model-Optimizer/blob/main/modelopt/onnx/quantization/graph_utils.py (concat elimination)",
    // A concatenation that another one reads is decided after that.
    order: Order::Backward,
    apply: one_scale,
};

pub(in super::super) const EACH_SCALE: Rule = Rule {
    name: "concat",
    operators: &["Concat"],
    about: "Where a quantized layer reads it, also behind pooling, changes of shape and other concatenations, or where all inputs are integers already, all inputs and the output are quantized, each with its own scale (QLinearConcat). One that makes an output of the graph stays float, and one between floats, such as in the decode tail of a detector.",
    reason: "Its kernel takes a scale for each input, and converts by a table of 256 entries while it copies: no common scale is needed. It writes integers only; between floats it would only round.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: each_scale,
};

fn each_scale(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let view = scene.view;
    let Some(inputs) = inputs(view, index) else {
        return Verdict::Float("one of its inputs is a constant".to_owned());
    };
    let Some(output) = integer::fused_output(view, index) else {
        return Verdict::Float(
            "it makes an output of the graph, and its integer kernel writes integers only"
                .to_owned(),
        );
    };
    let are_integers = inputs.iter().all(|input| is_integer(view, sites, input));
    if !are_integers && !read_by_integers(view, sites, output) {
        return Verdict::Float(
            "no quantized layer reads it, and not all of its inputs are integers".to_owned(),
        );
    }
    for (position, input) in inputs.into_iter().enumerate() {
        sites.read(input, (index, position));
    }
    integer::output(view, sites, index);
    Verdict::Quantized
}

/// Whether a value is integers, itself or as elements of a value that is.
fn is_integer<'a>(view: &View<'a>, sites: &Sites, mut value: &'a str) -> bool {
    while !sites.has(value) {
        let before = view.producer_index(value).filter(|&node| moving::keeps_integers(view, node));
        let Some(input) = before.and_then(|node| view.activation(node, 0)) else { return false };
        value = input;
    }
    true
}

/// Whether a value is read quantized, also behind operators that move its elements and behind concatenations.
fn read_by_integers(view: &View, sites: &Sites, value: &str) -> bool {
    sites.has(value)
        || view.readers(value).into_iter().any(|(reader, input)| {
            let node = &view.graph.nodes[reader];
            if node.op_type == "Concat" && inputs(view, reader).is_some() {
                // It is quantized by what reads it behind its activation.
                return integer::fused_output(view, reader)
                    .is_some_and(|output| read_by_integers(view, sites, output));
            }
            let mut outputs = node.outputs.iter();
            input == 0
                && view.moves(reader)
                && outputs.any(|output| read_by_integers(view, sites, output))
        })
}

/// All inputs of a node, `None` where one is a constant.
pub(super) fn inputs<'a>(view: &View<'a>, index: usize) -> Option<Vec<&'a str>> {
    let count = view.graph.nodes[index].inputs.len();
    (0..count).map(|input| view.activation(index, input)).collect()
}

fn one_scale(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let view = scene.view;
    let mut together = Vec::new();
    if let Some(output) = scene.node(index).outputs.first() {
        quantized_behind(view, sites, output, &mut together);
    }
    if together.is_empty() {
        return Verdict::Float("no quantized layer reads it".to_owned());
    }
    let Some(inputs) = inputs(view, index) else {
        return Verdict::Float("one of its inputs is a constant".to_owned());
    };
    for (position, input) in inputs.into_iter().enumerate() {
        sites.read(input, (index, position));
        together.push(input);
    }
    for value in &together[1..] {
        sites.share(together[0], value);
    }
    Verdict::Quantized
}

/// The value and those that only move its elements, as far as they are read quantized.
fn quantized_behind<'a>(view: &View<'a>, sites: &Sites, value: &'a str, found: &mut Vec<&'a str>) {
    if sites.has(value) {
        found.push(value);
    }
    for (reader, input) in view.readers(value) {
        if input == 0 && moving::commutes(view, reader) {
            for output in &view.graph.nodes[reader].outputs {
                quantized_behind(view, sites, output, found);
            }
        }
    }
}
