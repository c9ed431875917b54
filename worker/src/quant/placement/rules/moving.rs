//! Operators that only move elements of their first input.

use super::{ONNXRUNTIME_SELECTORS, TENSORRT_GUIDE, integer};
use crate::quant::placement::Sites;
use crate::quant::placement::rule::{Order, Rule, Scene, Verdict};

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
    ],
    about: "Max pooling and changes of shape have no pairs of their own. Where values before and behind them are read quantized, these have one scale, the largest of theirs.",
    reason: "They commute with rounding: TensorRT moves the next layer's quantization in front of them, and they then move integers. With one scale that quantization is the one which is there already.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: commuting,
};

pub(in super::super) const KEEPS_SCALE: Rule = Rule {
    name: "keeps-scale",
    operators: &["MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"],
    about: "Between integers, input and output are quantized with the input's range: one constant of the scale for both. Where the input is float they stay float.",
    reason: "ONNX Runtime drops the pairs around them only where both scales are the same; then they move bytes.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |scene, index, sites| {
        let input = scene.view.activation(index, 0).filter(|input| sites.has(input));
        let Some(input) = input else { return Verdict::Float("its input is float".to_owned()) };
        sites.read(input, (index, 0));
        integer::output(scene.view, sites, index);
        Verdict::Quantized
    },
};

fn commuting(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let view = scene.view;
    if let Some(output) = scene.node(index).outputs.first().filter(|output| sites.has(output)) {
        let origin = view.origin(output);
        let related = |name: &&String| *name != output && view.origin(name) == origin;
        let related: Vec<String> = sites.tensors.keys().filter(related).cloned().collect();
        related.iter().for_each(|name| sites.share(output, name));
    }
    Verdict::Float(
        "it commutes with rounding: TensorRT moves the pair behind it in front".to_owned(),
    )
}
