//! Concatenations.

use super::{ONNXRUNTIME_SELECTORS, integer};
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
    about: "All inputs and the output are quantized, each with its own scale (QLinearConcat).",
    reason: "Its kernel takes a scale for each input, and converts by a table of 256 entries while it copies: nothing is lost by a common scale.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |scene, index, sites| match inputs(scene.view, index) {
        Some(inputs) => {
            for (position, input) in inputs.into_iter().enumerate() {
                sites.read(input, (index, position));
            }
            integer::output(scene.view, sites, index);
            Verdict::Quantized
        }
        None => Verdict::Float("one of its inputs is a constant".to_owned()),
    },
};

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
        if input == 0
            && view.moves(reader)
            && let Some(output) = view.graph.nodes[reader].outputs.first()
        {
            quantized_behind(view, sites, output, found);
        }
    }
}
