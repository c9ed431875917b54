//! The form of a float model that ranges and Q/DQ pairs refer to.

use super::quantized;
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
    if let Some((node, form)) = quantized::first(&model.graph) {
        let error =
            Error::user(format!("the model is quantized already: {}", form.about())).at(node.place());
        return Err(error.help(
            "start from the float model: the output of `train`, or the ONNX file that was quantized",
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
