//! Nodes that compute the same, and integer constants that are the same.
//!
//! Float constants stay even where they are equal: two layers that start with the same weights are trained apart.

use std::collections::HashMap;

use crate::Result;
use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};

/// Operators that are not merged: what they give is drawn anew each time, or runtimes want a pair for each reader.
const KEPT: [&str; 4] = ["Dropout", "QuantizeLinear", "DequantizeLinear", "Constant"];

/// Lets readers of equal integer constants and of equal nodes read the first of them. Those whose values are
/// outputs of the graph stay. Returns how many were merged.
pub fn merge(model: &mut Model) -> Result<usize> {
    let graph = &mut model.graph;
    // A graph in an attribute may read any value by its name.
    let opaque = |node: &Node| node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)));
    if graph.nodes.iter().any(opaque) {
        return Ok(0);
    }
    let mut same: HashMap<String, String> = HashMap::new();
    let mut merged = constants(graph, &mut same);
    let mut seen: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.inputs {
            if let Some(first) = same.get(input) {
                input.clone_from(first);
            }
        }
        if !is_mergeable(graph, &node) {
            kept.push(node);
            continue;
        }
        let mut key = vec![node.op_type.clone()];
        key.extend(node.inputs.iter().cloned());
        let places = seen.entry(key).or_default();
        match places.iter().find(|&&place| computes_same(&kept[place], &node)) {
            Some(&place) => {
                let pairs = node.outputs.iter().zip(&kept[place].outputs);
                same.extend(pairs.map(|(own, first)| (own.clone(), first.clone())));
                merged += 1;
            }
            None => {
                places.push(kept.len());
                kept.push(node);
            }
        }
    }
    graph.nodes = kept;
    Ok(merged)
}

fn constants(graph: &mut Graph, same: &mut HashMap<String, String>) -> usize {
    let integer = |data: &TensorData| matches!(data.dtype, DType::I64 | DType::I32 | DType::Bool);
    let mut seen: HashMap<(DType, &[i64], &[u8]), &str> = HashMap::new();
    for (name, data) in graph.initializers.iter().filter(|(_, data)| integer(data)) {
        if graph.is_output(name) {
            continue;
        }
        match seen.entry((data.dtype, &data.shape, &data.bytes)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                same.insert(name.clone(), (*first.get()).to_owned());
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(name);
            }
        }
    }
    graph.initializers.retain(|name, _| !same.contains_key(name));
    same.len()
}

fn is_mergeable(graph: &Graph, node: &Node) -> bool {
    node.domain.is_empty()
        && node.opaque.is_empty()
        && !KEPT.contains(&node.op_type.as_str())
        && !node.op_type.starts_with("Random")
        && !["Bernoulli", "Multinomial"].contains(&node.op_type.as_str())
        && !node.inputs.is_empty()
        && !node.outputs.iter().any(|output| output.is_empty() || graph.is_output(output))
}

fn computes_same(a: &Node, b: &Node) -> bool {
    a.outputs.len() == b.outputs.len() && a.attributes == b.attributes
}
