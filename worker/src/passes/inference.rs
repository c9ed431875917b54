//! Files that were exported for training, or for a runtime's own operators, made into the form for inference.
//!
//! Whether a pass is one of training is the caller's choice here ([`crate::interp::Mode`]), not the file's; and what is
//! written in the end must not normalize by the batch at inference.

use std::collections::HashSet;

use crate::graph::{Attribute, Model};
use crate::{Error, Result};

/// Takes training mode out of BatchNormalization and Dropout nodes, and their outputs that only training needs, makes the standard's
/// pairs of TensorRT's, and puts the branch that is taken in the place of an If whose condition is known.
///
/// # Errors
/// Such an output that something reads; a branch that cannot be read.
pub fn inference_form(model: &mut Model) -> Result<usize> {
    // First: a branch may hold what the others change.
    let mut changed = super::branches::take_branches(model)?;
    changed += super::to_standard_pairs(model);
    let graph = &mut model.graph;
    let mut read: HashSet<String> = graph.outputs.iter().map(|o| o.name.clone()).collect();
    read.extend(graph.nodes.iter().flat_map(|node| node.inputs.iter().cloned()));
    for node in graph.nodes.iter_mut().filter(|node| node.domain.is_empty()) {
        let before = node.clone();
        match node.op_type.as_str() {
            "BatchNormalization" => {
                if let Some(name) = node.outputs.iter().skip(1).find(|name| read.contains(*name)) {
                    return Err(Error::user(format!(
                        "its output `{name}`, which only training makes, is read"
                    ))
                    .help("export the model with torch.onnx.export(…, training=TrainingMode.EVAL)")
                    .at(before.place()));
                }
                node.outputs.truncate(1);
                if let Some(mode) = node.attributes.get_mut("training_mode") {
                    *mode = Attribute::Int(0);
                }
            }
            // Opset 12: the third input says whether it drops.
            "Dropout" => {
                node.inputs.truncate(2);
                if node.outputs.get(1).is_some_and(|mask| !read.contains(mask)) {
                    node.outputs.truncate(1);
                }
            }
            _ => {}
        }
        changed += usize::from(*node != before);
    }
    super::remove_dead(model)?;
    Ok(changed)
}
