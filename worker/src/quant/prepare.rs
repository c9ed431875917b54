//! The form of a float model that ranges and Q/DQ pairs refer to.

use crate::graph::Model;
use crate::{Error, Result, passes};

/// Simplifies a float model and folds BatchNormalization, so that calibration and insertion see the same tensors.
///
/// # Errors
/// A model that is quantized already; an opset without per-channel quantization.
pub fn prepare(model: &mut Model) -> Result<()> {
    let quantized = |op: &str| ["QuantizeLinear", "DequantizeLinear"].contains(&op);
    if let Some(node) = model.graph.nodes.iter().find(|node| quantized(&node.op_type)) {
        return Err(Error::user("the model is quantized already")
            .at(node.place())
            .help("start from the float model: the output of `train`, or an ONNX file without Q/DQ"));
    }
    if model.opset() < 13 {
        return Err(Error::user(format!(
            "the model imports opset {}; quantization per channel needs 13 or later",
            model.opset()
        ))
        .help("convert it: onnx.version_converter.convert_version(model, 17)"));
    }
    passes::simplify(model)?;
    passes::fold_batch_norm(model)?;
    Ok(())
}
