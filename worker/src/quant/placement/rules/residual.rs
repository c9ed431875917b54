//! Additions of two computed values.

use super::{MEASURED, ONNXRUNTIME_SELECTORS, TENSORRT_GUIDE};
use crate::quant::placement::View;
use crate::quant::placement::rule::{Order, Rule, Verdict};
use crate::quant::placement::rules::integer;

pub(in super::super) const IDENTITY: Rule = Rule {
    name: "residual-add",
    operators: &["Add"],
    about: "One input is quantized: the identity branch, which has fewer layers behind it (the second input where both have as many). In a down-sampling block that is the output of the down-sampling convolution. Additions of a constant, of a mask to attention scores, and within an activation such as GELU stay float.",
    reason: "The other branch's layer, the addition and the activation behind it become one kernel, which reads the identity branch as integers. A pair on both inputs ends the fusion, one on none makes the layer write floats. ResNet-50 on an H100, batch 32, TensorRT 8.5.3: 0.99 ms, against 1.22 ms with pairs where the quantizer of ONNX Runtime puts them.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, sites| match branches(scene.view, index) {
        Ok([first, second]) => {
            let view = scene.view;
            let input = usize::from(view.depth(first) >= view.depth(second));
            sites.read([first, second][input], (index, input));
            Verdict::Quantized
        }
        Err(reason) => Verdict::Float(reason),
    },
};

pub(in super::super) const FLOAT: Rule = Rule {
    name: "float-residual",
    operators: &["Add"],
    about: "An addition of two branches neither of which comes from a convolution stays float: those of transformers and, but for the first behind each convolution, of ConvNeXt, whose branches end in matrix products. A branch comes from a convolution where no matrix product, normalization or addition of anything else is in between.",
    reason: "Matrix products write floats as well. Integers save nothing then: pairs would round the sum that every block adds to. A vision transformer took 3.9 ms in place of 4.1, a ConvNeXt 4.2 in place of 4.3, with 2.7 and 1.2 dB more of output SQNR.",
    source: MEASURED,
    order: Order::Forward,
    apply: |scene, index, _| match branches(scene.view, index) {
        Ok(inputs) if !convolved(scene.view, inputs) => Verdict::Float(
            "neither of its branches comes from a convolution, and matrix products write floats"
                .to_owned(),
        ),
        _ => Verdict::Pass,
    },
};

pub(in super::super) const BOTH: Rule = Rule {
    name: "residual-add",
    operators: &["Add"],
    about: "Where a branch comes from a convolution, both inputs and the output are quantized (QLinearAdd). Additions of a constant, of a mask to attention scores, and within an activation such as GELU stay float.",
    reason: "Its integer convolutions write integers only, so that both branches are integers already; a float addition would convert them there and back.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |scene, index, sites| match branches(scene.view, index) {
        Ok(inputs) => {
            for (position, input) in inputs.into_iter().enumerate() {
                sites.read(input, (index, position));
            }
            integer::output(scene.view, sites, index);
            Verdict::Quantized
        }
        Err(reason) => Verdict::Float(reason),
    },
};

/// Whether an Add is one that [`BOTH`] quantizes.
pub(super) fn is_integer(view: &View, index: usize) -> bool {
    branches(view, index).is_ok_and(|inputs| convolved(view, inputs))
}

fn convolved(view: &View, inputs: [&str; 2]) -> bool {
    inputs.into_iter().any(|input| view.is_convolved(input))
}

/// The inputs of an Add that joins two branches of a network.
///
/// # Errors
/// Why it is another one.
pub(super) fn branches<'a>(view: &View<'a>, index: usize) -> Result<[&'a str; 2], String> {
    let (Some(first), Some(second)) = (view.activation(index, 0), view.activation(index, 1)) else {
        return Err("it adds a constant".to_owned());
    };
    let sum = view.graph.nodes[index].outputs.first();
    let readers = sum.map(|sum| view.readers(sum)).unwrap_or_default();
    if readers.iter().any(|&(reader, _)| view.graph.nodes[reader].op_type == "Softmax") {
        return Err("a Softmax reads it: a mask may hold the least of all floats".to_owned());
    }
    if view.layers_behind(first) == view.layers_behind(second) {
        return Err("both inputs come from the same layers: it is part of an activation".to_owned());
    }
    Ok([first, second])
}
