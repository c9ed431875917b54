//! The form of a float model that ranges and Q/DQ pairs refer to.

use super::quantized;
use crate::graph::{DType, Model, Node};
use crate::ops::WEIGHTED;
use crate::{Error, Result, passes};

/// The opset that brought quantization per channel.
const PER_CHANNEL: i64 = 13;

/// Frees a float model's batch, writes sums as additions, simplifies it, folds constants and BatchNormalization into the layers before them and brings
/// products into their plain form, so that calibration and insertion see the same tensors.
///
/// # Errors
/// A model that is quantized already, or whose weights are of another type than float32; an opset without per-channel quantization.
pub fn prepare(model: &mut Model) -> Result<()> {
    prepare_and_tell(model).map(drop)
}

/// The same; the normalizations that were folded, for [`passes::unfold_batch_norm`].
///
/// # Errors
/// As [`prepare`].
pub fn prepare_and_tell(model: &mut Model) -> Result<Vec<passes::Folded>> {
    if let Some((node, form)) = quantized::first(&model.graph) {
        let error = Error::user(format!("the model is quantized already: {}", form.about()))
            .at(node.place());
        return Err(error.help(
            "start from the float model: the output of `train`, or the ONNX file that was quantized",
        ));
    }
    if let Some((node, weight, dtype)) = half_weight(model) {
        let error = Error::user(format!("its weight `{weight}` is {}", dtype.name()));
        return Err(error.at(node.place()).help(
            "quantization starts from float32: take the model from before its conversion; what stays float becomes FP16 by `precision` of `build-engine`",
        ));
    }
    if model.opset() < PER_CHANNEL {
        passes::set_opset(model, PER_CHANNEL)
            .map_err(|error| error.at("quantization per channel needs opset 13 or later"))?;
    }
    passes::to_additions(model)?;
    passes::simplify(model)?;
    passes::plain_products(model)?;
    // Before normalizations, into which they fold too: those may be put back behind their layers.
    passes::fold_affine(model)?;
    passes::biases_to_gemm(model)?;
    let folded = passes::fold_and_tell(model)?;
    passes::set_batch(model, None)?;
    Ok(folded)
}

/// The first layer whose weight is no float32, which ranges, scales and pairs are made for.
fn half_weight(model: &Model) -> Option<(&Node, &str, DType)> {
    let graph = &model.graph;
    graph.nodes.iter().filter(|node| WEIGHTED.contains(&node.op_type.as_str())).find_map(|node| {
        let name = node.input(1)?;
        let dtype = graph.initializers.get(name)?.dtype;
        let half = matches!(dtype, DType::F16 | DType::BF16 | DType::F64);
        half.then_some((node, name, dtype))
    })
}
