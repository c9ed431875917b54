//! Nodes that hand their input on: Identity, and Dropout at inference.

use std::collections::HashMap;

use crate::Result;
use crate::graph::{Attribute, Model, Node};

/// Removes Identity and Dropout nodes. One between a graph's input and its output stays, since a value has one name.
pub fn remove(model: &mut Model) -> Result<usize> {
    let graph = &mut model.graph;
    // A graph in an attribute may read any value by its name.
    let opaque = |node: &Node| node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)));
    if graph.nodes.iter().any(opaque) {
        return Ok(0);
    }
    let mut removed = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let (input, output) = (node.input(0).map(str::to_owned), node.outputs.first().cloned());
        let (Some(input), Some(output), true) = (input, output, hands_on(graph, node)) else {
            index += 1;
            continue;
        };
        if graph.is_output(&output) {
            // The output's name is the one that users know: the input's producer takes it.
            let made = graph.nodes[..index].iter().any(|node| node.outputs.contains(&input));
            if !made || graph.is_output(&input) {
                index += 1;
                continue;
            }
            graph.nodes.remove(index);
            rename(graph, &HashMap::from([(input, output)]));
        } else {
            graph.nodes.remove(index);
            let names = HashMap::from([(output, input)]);
            for node in &mut graph.nodes[index..] {
                replace(&mut node.inputs, &names);
            }
        }
        removed += 1;
    }
    Ok(removed)
}

fn hands_on(graph: &crate::graph::Graph, node: &Node) -> bool {
    if !node.domain.is_empty() {
        return false;
    }
    let mask_is_read = || {
        node.outputs.get(1).is_some_and(|mask| {
            !mask.is_empty()
                && (graph.is_output(mask) || graph.nodes.iter().any(|n| n.inputs.contains(mask)))
        })
    };
    match node.op_type.as_str() {
        "Identity" => true,
        "Dropout" => !mask_is_read(),
        _ => false,
    }
}

fn rename(graph: &mut crate::graph::Graph, names: &HashMap<String, String>) {
    for node in &mut graph.nodes {
        replace(&mut node.inputs, names);
        replace(&mut node.outputs, names);
    }
}

fn replace(values: &mut [String], names: &HashMap<String, String>) {
    for value in values {
        if let Some(name) = names.get(value) {
            value.clone_from(name);
        }
    }
}
