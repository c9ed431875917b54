//! The table of forms.

use qpipe::stages::insert_qdq::Target;

use super::{onnxruntime, tensorrt};
use crate::graph::Model;
use crate::quant::insert::TARGET_KEY;
use crate::quant::placement::POLICIES;
use crate::{Error, Result, passes};

/// A runtime and what it wants changed. The target whose rules the pairs follow is the second argument.
type Form = (Target, fn(&mut Model, Option<Target>) -> Result<()>);

const FORMS: &[Form] = &[
    (Target::Onnxruntime, onnxruntime::finalize),
    (Target::Tensorrt, tensorrt::finalize),
    (Target::TensorrtRtx, tensorrt::finalize),
];

/// Brings a Q/DQ model into the form that `target` wants; by default the runtime that its pairs were placed
/// for, which its metadata names. A model without pairs stays as it is.
///
/// # Errors
/// A model whose pairs the target refuses; a model with pairs of unknown origin and no target.
pub fn finalize(model: &mut Model, target: Option<Target>) -> Result<()> {
    if !model.graph.nodes.iter().any(|node| node.op_type == "DequantizeLinear") {
        return Ok(());
    }
    let placed = match model.metadata.get(TARGET_KEY) {
        None => None,
        Some(name) => Some(
            POLICIES
                .iter()
                .find(|policy| policy.name == name)
                .map(|policy| policy.target)
                .ok_or_else(|| Error::user(format!("metadata `{TARGET_KEY}` is \"{name}\"")))?,
        ),
    };
    // A quantized model of another tool: its author chose its form.
    let Some(target) = target.or(placed) else { return Ok(()) };
    let form = FORMS.iter().find(|form| form.0 == target);
    let form = form.ok_or_else(|| Error::bug(format!("no form for {target:?}")))?;
    (form.1)(model, placed)?;
    passes::remove_dead(model)?;
    let name = POLICIES.iter().find(|policy| policy.target == target).map(|policy| policy.name);
    if let Some(name) = name {
        model.metadata.insert(TARGET_KEY.to_owned(), name.to_owned());
    }
    Ok(())
}
