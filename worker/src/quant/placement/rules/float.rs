//! What stays float.

use super::{ONNXRUNTIME_GUIDE, ONNXRUNTIME_SELECTORS, TENSORRT_GUIDE};
use crate::quant::placement::rule::{Order, Rule, Verdict};

pub(in super::super) const FUSED: Rule = Rule {
    name: "fused-activation",
    operators: &["Relu", "Clip"],
    about: "No pair stands between a layer or an addition and the activation behind it; the pair of the next layer stands behind the activation.",
    reason: "The activation is part of the layer's kernel. A pair in between ends the fusion, and rounds values that are cut off next.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, _| {
        let before = scene.view.activation(index, 0).and_then(|input| scene.view.producer(input));
        let fuses = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add"];
        match before.filter(|node| fuses.contains(&node.op_type.as_str())) {
            Some(node) => Verdict::Float(format!(
                "it is part of \"{}\"'s kernel: the pair stands behind it",
                node.label()
            )),
            None => Verdict::Pass,
        }
    },
};

pub(in super::super) const ACTIVATION: Rule = Rule {
    name: "float-activation",
    operators: &[
        "Sigmoid",
        "HardSigmoid",
        "Swish",
        "HardSwish",
        "Mish",
        "Gelu",
        "Erf",
        "Tanh",
        "Softplus",
        "Elu",
        "Selu",
        "Celu",
        "Mul",
    ],
    about: "SiLU (Sigmoid and Mul), HardSwish, GELU, Mish and their parts compute in float; the next layer's input is quantized behind them. A Mul counts where a Sigmoid or HardSigmoid gates it.",
    reason: "They bend most where the steps of 8 bits are widest, and cost little: TensorRT fuses them with each other, and into the layer before them where it can.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, _| {
        let node = scene.node(index);
        if node.op_type != "Mul" {
            return Verdict::Float("activations like it are computed in float".to_owned());
        }
        let gate = node.inputs.iter().find_map(|input| {
            let gate = scene.view.producer(input)?;
            ["Sigmoid", "HardSigmoid"].contains(&gate.op_type.as_str()).then_some(gate)
        });
        gate.map_or(Verdict::Pass, |gate| {
            Verdict::Float(format!("\"{}\" gates it: both are computed in float", gate.label()))
        })
    },
};

/// The same where gates behind integer convolutions are other rules' concern.
pub(in super::super) const UNGATED: Rule = Rule {
    about: "HardSwish, GELU, Mish, Tanh and the like compute in float, and so do Sigmoids and gates that `integer-gate` and `integer-sigmoid` do not take: those behind no integer convolution. The next layer's input is quantized behind them.",
    reason: "ONNX Runtime has integer kernels of Sigmoid and of multiplication alone. Of HardSwish from its parts 4 to 8 % of the time was to be won for 1.8 dB: they bend most where the steps of 8 bits are widest.",
    source: ONNXRUNTIME_SELECTORS,
    ..ACTIVATION
};

pub(in super::super) const NORMALIZATION: Rule = Rule {
    name: "float-normalization",
    operators: &[
        "Softmax",
        "LogSoftmax",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "BatchNormalization",
        "LRN",
    ],
    about: "Softmax and normalizations compute in float. A BatchNormalization is one of them only where no layer stands before it that it could be folded into.",
    reason: "Sums of exponentials and squares need more than 8 bits, and there is no integer kernel that would be faster.",
    source: ONNXRUNTIME_GUIDE,
    order: Order::Forward,
    apply: |_, _, _| Verdict::Float("normalizations are computed in float".to_owned()),
};
