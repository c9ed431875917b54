//! Quantization followed by dequantization with the same constants, found in the graph.

use std::collections::{HashMap, HashSet};

use crate::Result;
use crate::graph::{Graph, Node, TensorData};
use crate::ops::FakeQuantize;

/// A QuantizeLinear that its DequantizeLinears undo.
pub(super) struct Pair {
    /// What both together do.
    pub fake: FakeQuantize,
    /// The first dequantization, at whose place the step runs.
    pub first: usize,
}

/// For each QuantizeLinear (by node index) all of whose readers dequantize with the same constants: the pair.
pub(super) fn pairs(
    graph: &Graph,
    constants: &HashMap<&str, &TensorData>,
    watched: &HashSet<&str>,
) -> Result<HashMap<usize, Pair>> {
    let consumers = graph.consumers();
    let fake = |node: &Node| {
        let find = |index| node.input(index).and_then(|name| constants.get(name).copied());
        match (find(1), node.input(2), find(2)) {
            (None, _, _) | (_, Some(_), None) => Ok(None),
            (Some(scale), _, zero_point) => FakeQuantize::of(node, scale, zero_point),
        }
    };
    let mut pairs = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let output = node.outputs.first().map_or("", String::as_str);
        if node.op_type != "QuantizeLinear" || graph.is_output(output) || watched.contains(output) {
            continue;
        }
        let (Some(readers), Some(quantize)) = (consumers.get(output), fake(node)?) else {
            continue;
        };
        let mut undone = true;
        for &reader in readers {
            let reader = &graph.nodes[reader];
            let reads = reader.op_type == "DequantizeLinear"
                && reader.input(0) == Some(output)
                && !reader.outputs.is_empty();
            undone &= reads && fake(reader)?.as_ref() == Some(&quantize);
        }
        if undone && let Some(&first) = readers.iter().min() {
            pairs.insert(index, Pair { fake: quantize, first });
        }
    }
    Ok(pairs)
}
