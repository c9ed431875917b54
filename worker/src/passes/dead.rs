//! Values that nobody reads.

use std::collections::HashSet;

use crate::Result;
use crate::graph::{Attribute, Model};

/// Removes nodes, initializers and type notes whose values nobody reads.
pub fn remove_dead(model: &mut Model) -> Result<usize> {
    let graph = &mut model.graph;
    let mut read: HashSet<String> =
        graph.outputs.iter().map(|output| output.name.clone()).collect();
    let before = graph.nodes.len() + graph.initializers.len();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    let mut opaque = false;
    // Backwards: a node's readers stand behind it.
    for node in graph.nodes.drain(..).rev() {
        // A graph in an attribute may read any value before it, which is not listed as an input.
        opaque |= node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)));
        if opaque || node.outputs.iter().any(|output| read.contains(output)) {
            read.extend(node.inputs.iter().cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    if !opaque {
        graph.initializers.retain(|name, _| read.contains(name));
    }
    let made: HashSet<&str> =
        graph.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str)).collect();
    graph.value_infos.retain(|info| made.contains(info.name.as_str()));
    Ok(before - graph.nodes.len() - graph.initializers.len())
}
