//! The batch dimension of a model's inputs and outputs.

use crate::graph::{Dim, Graph, Model, TensorData};
use crate::{Error, Result};

/// Fixes the first extent of inputs and outputs, or frees it (`None`). Types of values in between are dropped: they
/// may hold the old one. A Reshape to the old fixed batch copies the extent of its input instead.
///
/// # Errors
/// An input whose shape is not known or that has no extent.
pub fn set_batch(model: &mut Model, batch: Option<u32>) -> Result<()> {
    let graph = &mut model.graph;
    let old = graph.inputs.iter().find_map(|input| match input.shape.as_deref()?.first()? {
        Dim::Fixed(extent) => Some(*extent),
        _ => None,
    });
    let extent = || batch.map_or_else(|| Dim::Named("batch".to_owned()), |n| Dim::Fixed(n.into()));
    for input in &mut graph.inputs {
        let first = input.shape.as_mut().and_then(|shape| shape.first_mut()).ok_or_else(|| {
            Error::user(format!("input `{}` has no batch dimension", input.name))
                .help("export the model with an input of shape [batch, channels, height, width]")
        })?;
        *first = extent();
    }
    for output in &mut graph.outputs {
        if let Some(first) = output.shape.as_mut().and_then(|shape| shape.first_mut()) {
            *first = extent();
        }
    }
    graph.value_infos.clear();
    if let Some(old) = old {
        copy_extent(graph, old)?;
    }
    Ok(())
}

/// Reshapes whose constant shape begins with the old batch begin with 0, "as the input", instead.
fn copy_extent(graph: &mut Graph, old: i64) -> Result<()> {
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op_type != "Reshape" {
            continue;
        }
        let allows_zero = node.int("allowzero", 0)? != 0;
        let Some(name) = node.input(1).map(str::to_owned) else { continue };
        let Some(data) = graph.initializers.get(&name) else { continue };
        let mut shape = data.to_i64()?;
        // `[1, …]` of a weight's Reshape is not the batch.
        let of_constant = node.input(0).is_some_and(|input| graph.initializers.contains_key(input));
        // PyTorch's dynamo exporter allows extents of 0 and has none; one that is there means another thing.
        if shape.first() != Some(&old) || of_constant || (allows_zero && shape.contains(&0)) {
            continue;
        }
        shape[0] = 0;
        let fresh = graph.fresh_name(&name);
        graph.initializers.insert(fresh.clone(), TensorData::i64(&[shape.len() as i64], &shape));
        graph.nodes[index].inputs[1] = fresh;
        graph.nodes[index].attributes.shift_remove("allowzero");
    }
    Ok(())
}
