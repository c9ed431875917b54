//! Layers with a weight, and products of two computed matrices.

use qpipe::stages::tensorrt_version::TensorrtVersion;

use super::{ONNXRUNTIME_SELECTORS, TENSORRT_GUIDE};
use crate::quant::placement::Sites;
use crate::quant::placement::rule::{Order, Rule, Scene, Verdict};
use crate::quant::placement::sites::weight_axis;

/// From this version on the scales of a ConvTranspose's weight are along its output channels.
const OUTPUT_CHANNELS: TensorrtVersion = TensorrtVersion::new(10, 2);

pub(in super::super) const LAYER: Rule = Rule {
    name: "weighted-layer",
    operators: &["Conv", "Gemm", "MatMul"],
    about: "The input and the constant weight are quantized, the weight with a scale for each output channel (axis 0 of Conv; the columns of Gemm and MatMul). The bias stays float. BatchNormalization is folded before, and nothing stands between the layer and the activation behind it.",
    reason: "Both operands of the product must be integers. The pair of the next layer's input stands behind bias and activation, so that layer, bias, activation and rounding are one kernel.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, sites| weighted(scene, index, sites, None),
};

pub(in super::super) const GROUPED: Rule = Rule {
    name: "grouped-conv",
    operators: &["Conv"],
    about: "Depthwise and other grouped convolutions: as `weighted-layer`; the weight is [C_out, C_in / group, kernel…], so axis 0 has a scale for each output channel of every group.",
    reason: "A depthwise filter sees one channel only, and channels differ in range by orders of magnitude: with one scale for all, small filters have few steps left.",
    source: "Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342, section 3.2",
    order: Order::Forward,
    apply: |scene, index, sites| match scene.node(index).int("group", 1) {
        Ok(1) | Err(_) => Verdict::Pass,
        Ok(_) => weighted(scene, index, sites, None),
    },
};

pub(in super::super) const TRANSPOSED: Rule = Rule {
    name: "transposed-conv",
    operators: &["ConvTranspose"],
    about: "As `weighted-layer`, but the axis of the scales in the weight [C_in, C_out / group, kernel…] depends on the version: 0, the input channels, up to TensorRT 10.1; 1, the output channels, from 10.2 on (`tensorrt_version`).",
    reason: "The older kernels are the gradient of a convolution, and take its scales: one for each input channel. Scales along the other axis gave wrong values, or no integer kernel.",
    source: "https://github.com/NVIDIA/TensorRT/issues/2380, https://github.com/NVIDIA/TensorRT/issues/1694",
    order: Order::Forward,
    apply: |scene, index, sites| {
        let axis = i64::from(scene.version >= OUTPUT_CHANNELS);
        weighted(scene, index, sites, Some(axis))
    },
};

pub(in super::super) const COMPUTED: Rule = Rule {
    name: "computed-matmul",
    operators: &["MatMul", "Gemm"],
    about: "Both inputs of a product of two computed matrices are quantized, each with one scale: queries with keys, and probabilities with values of an attention block. Scaling, mask and Softmax between them stay float.",
    reason: "The products are as long as those with weights; integers on one side only give a float kernel.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, sites| {
        let inputs = [0, 1].map(|input| scene.view.activation(index, input));
        let [Some(first), Some(second)] = inputs else { return Verdict::Pass };
        sites.read(first, (index, 0));
        sites.read(second, (index, 1));
        Verdict::Quantized
    },
};

pub(in super::super) const NO_TRANSPOSED: Rule = Rule {
    name: "transposed-conv",
    operators: &["ConvTranspose"],
    about: "Stays float.",
    reason: "ONNX Runtime has no integer kernel of it on CPUs: pairs around it would only round.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |_, _, _| Verdict::Float("ONNX Runtime has no integer kernel of it on CPUs".to_owned()),
};

/// Quantizes a layer's input and its constant weight, along `axis` where that is not the output channels'. Passes products of two
/// computed matrices on to their own rule.
pub(super) fn weighted(
    scene: &Scene,
    index: usize,
    sites: &mut Sites,
    axis: Option<i64>,
) -> Verdict {
    let view = scene.view;
    let input = view.activation(index, 0);
    let product = ["MatMul", "Gemm"].contains(&scene.node(index).op_type.as_str());
    if product && input.is_some() && view.activation(index, 1).is_some() {
        return Verdict::Pass;
    }
    match (weight_axis(view, index), input) {
        (Ok(output), Some(input)) => {
            sites.read(input, (index, 0));
            sites.weights.push(((index, 1), axis.unwrap_or(output)));
            Verdict::Quantized
        }
        (Err(reason), _) => Verdict::Float(reason),
        (Ok(_), None) => Verdict::Float("its input is a constant".to_owned()),
    }
}
