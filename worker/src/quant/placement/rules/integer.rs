//! ONNX Runtime's layers: pairs on inputs and outputs, so that each is one integer kernel.

use super::weighted::weighted;
use super::{ONNXRUNTIME_GUIDE, ONNXRUNTIME_SELECTORS, concat, residual, stack};
use crate::quant::placement::rule::{Order, Rule, Scene, Verdict};
use crate::quant::placement::sites::weight_axis;
use crate::quant::placement::{Sites, View};

pub(in super::super) const OUTPUT: Rule = Rule {
    name: "output-layer",
    operators: &["Conv"],
    about: "A convolution that makes an output of the graph, itself or by the activation that is fused into it, stays float.",
    reason: "Outputs stay float, and the integer kernel of a convolution writes integers only: quantized it would run in float on rounded values.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |scene, index, _| match fused_output(scene.view, index) {
        Some(_) => Verdict::Pass,
        None => Verdict::Float(
            "it makes an output of the graph, and its integer kernel writes integers only"
                .to_owned(),
        ),
    },
};

pub(in super::super) const GROUPED: Rule = Rule {
    name: "grouped-conv",
    operators: &["Conv"],
    about: "Depthwise and other grouped convolutions: as `integer-conv`; axis 0 of the weight [C_out, C_in / group, kernel…] has a scale for each output channel of every group.",
    reason: "A depthwise filter sees one channel only, and channels differ in range by orders of magnitude: with one scale for all, small filters have few steps left.",
    source: "Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342, section 3.2",
    order: Order::Forward,
    apply: |scene, index, sites| match scene.node(index).int("group", 1) {
        Ok(1) | Err(_) => Verdict::Pass,
        Ok(_) => convolution(scene, index, sites),
    },
};

pub(in super::super) const CONV: Rule = Rule {
    name: "integer-conv",
    operators: &["Conv"],
    about: "The input, the constant weight (a scale for each output channel) and the output behind the fused activation are quantized, the bias at export (int32): QLinearConv. All readers of the output read it quantized, also those that are float.",
    reason: "Its kernel writes integers only. One reader of the float value is enough to leave the convolution in float.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: convolution,
};

pub(in super::super) const MATMUL: Rule = Rule {
    name: "integer-matmul",
    operators: &["Gemm", "MatMul"],
    about: "The input and the constant weight are quantized (QGemm, QLinearMatMul); the output only where a quantized layer reads it.",
    reason: "Unlike a convolution's, these kernels also write floats: a pair before a float reader would only round.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |scene, index, sites| {
        let verdict = weighted(scene, index, sites, None);
        if verdict == Verdict::Quantized && feeds_layer(scene, index) {
            output(scene.view, sites, index);
        }
        verdict
    },
};

pub(in super::super) const COMPUTED: Rule = Rule {
    name: "computed-matmul",
    operators: &["MatMul", "Gemm"],
    about: "Both inputs of a product of two computed matrices are quantized (QLinearMatMul, MatMulIntegerToFloat; QGemm where a Gemm has no bias), each with one scale: queries with keys, and probabilities with values of an attention block. The output only where a quantized layer reads it.",
    reason: "The products are as long as those with weights; its kernels take integers on both sides.",
    source: ONNXRUNTIME_GUIDE,
    order: Order::Forward,
    apply: |scene, index, sites| {
        let inputs = [0, 1].map(|input| scene.view.activation(index, input));
        let [Some(first), Some(second)] = inputs else { return Verdict::Pass };
        if !is_product(scene.view, index) {
            return Verdict::Float(
                "both its factors are computed, and its bias is none of integers".to_owned(),
            );
        }
        sites.read(first, (index, 0));
        sites.read(second, (index, 1));
        if feeds_layer(scene, index) {
            output(scene.view, sites, index);
        }
        Verdict::Quantized
    },
};

fn convolution(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let verdict = weighted(scene, index, sites, None);
    if verdict == Verdict::Quantized {
        output(scene.view, sites, index);
    }
    verdict
}

/// Whether a node is a product of two computed matrices that has an integer kernel: the bias of a Gemm would be one of floats, since no weight's scales are
/// such that it fits 32 bits.
fn is_product(view: &View, index: usize) -> bool {
    let computed = |input| view.activation(index, input).is_some();
    computed(0) && computed(1) && view.graph.nodes[index].input(2).is_none()
}

/// Whether a selected layer reads the output of a node.
pub(super) fn feeds_layer(scene: &Scene, index: usize) -> bool {
    let view = scene.view;
    let readers = fused_output(view, index).map(|value| view.readers(value)).unwrap_or_default();
    readers.into_iter().any(|(reader, input)| {
        scene.selection.has(reader)
            && match view.graph.nodes[reader].op_type.as_str() {
                "Conv" => input == 0 && weight_axis(view, reader).is_ok(),
                "Gemm" | "MatMul" => {
                    weight_axis(view, reader).is_ok()
                        || is_product(view, reader)
                        || stack::is_quantized(view, reader)
                }
                "Add" => residual::is_integer(view, reader),
                "Concat" => {
                    concat::inputs(view, reader).is_some() && fused_output(view, reader).is_some()
                }
                _ => false,
            }
    })
}

/// Quantizes a layer's output for all that read it.
pub(super) fn output(view: &View, sites: &mut Sites, index: usize) {
    if let Some(value) = fused_output(view, index) {
        for_all(view, sites, value);
    }
}

/// Quantizes a value for all that read it.
pub(super) fn for_all(view: &View, sites: &mut Sites, value: &str) {
    for site in view.readers(value) {
        sites.read(value, site);
    }
}

/// The value behind the activation that is fused into the layer; `None` for an output of the graph.
pub(super) fn fused_output<'a>(view: &View<'a>, index: usize) -> Option<&'a str> {
    let value = view.graph.nodes[index].outputs.first()?;
    if view.graph.is_output(value) {
        return None;
    }
    if let [(reader, 0)] = view.readers(value)[..] {
        let node = &view.graph.nodes[reader];
        let bounds = (1..node.inputs.len()).all(|input| view.activation(reader, input).is_none());
        if node.op_type == "Relu" || (node.op_type == "Clip" && bounds) {
            let value = node.outputs.first()?;
            return (!view.graph.is_output(value)).then_some(value);
        }
    }
    Some(value)
}
