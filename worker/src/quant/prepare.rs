//! The form of a float model that ranges and Q/DQ pairs refer to.

use crate::graph::Model;
use crate::{Error, Result, passes};

/// The opset that brought quantization per channel.
const PER_CHANNEL: i64 = 13;

/// Frees a float model's batch, simplifies it and folds BatchNormalization, so that calibration and insertion see the same tensors.
///
/// # Errors
/// A model that is quantized already; an opset without per-channel quantization.
pub fn prepare(model: &mut Model) -> Result<()> {
    prepare_and_tell(model).map(drop)
}

/// The same; the normalizations that were folded, for [`passes::unfold_batch_norm`].
///
/// # Errors
/// As [`prepare`].
pub fn prepare_and_tell(model: &mut Model) -> Result<Vec<passes::Folded>> {
    let quantized = |op: &str| ["QuantizeLinear", "DequantizeLinear"].contains(&op);
    if let Some(node) = model.graph.nodes.iter().find(|node| quantized(&node.op_type)) {
        return Err(Error::user("the model is quantized already").at(node.place()).help(
            "start from the float model: the output of `train`, or an ONNX file without Q/DQ",
        ));
    }
    if model.opset() < PER_CHANNEL {
        passes::set_opset(model, PER_CHANNEL)
            .map_err(|error| error.at("quantization per channel needs opset 13 or later"))?;
    }
    passes::simplify(model)?;
    let folded = passes::fold_and_tell(model)?;
    passes::set_batch(model, None)?;
    Ok(folded)
}
