//! Whether a model is one: the rules of <https://onnx.ai/onnx/repo-docs/IR.html> that a rewrite could break.

use std::collections::{HashMap, HashSet};

use crate::graph::{Graph, Model, Node};
use crate::{Error, Result, ops};

/// Checks names, single assignment, order of nodes, that all inputs are defined, and that operators
/// exist in the operator set that the model imports, with their attributes and inputs where it has them.
///
/// # Errors
/// The first rule that is broken, with the node or value.
pub fn check(model: &Model) -> Result<()> {
    let graph = &model.graph;
    if graph.outputs.is_empty() {
        return Err(Error::user("the graph has no output"));
    }
    let mut defined = outside_values(graph)?;
    let mut names = HashSet::new();
    for node in &graph.nodes {
        if !node.name.is_empty() && !names.insert(node.name.as_str()) {
            return Err(Error::user("another node has this name too").at(node.place()));
        }
        check_operator(model, node).map_err(|error| error.at(node.place()))?;
        check_inputs(graph, node, &defined).map_err(|error| error.at(node.place()))?;
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            if !defined.insert(output) {
                return Err(Error::user(format!("`{output}` is defined twice")).at(node.place()));
            }
        }
    }
    match graph.outputs.iter().find(|output| !defined.contains(output.name.as_str())) {
        None => Ok(()),
        Some(output) => {
            Err(Error::user(format!("no node makes the graph's output `{}`", output.name)))
        }
    }
}

fn outside_values(graph: &Graph) -> Result<HashSet<&str>> {
    let mut defined = HashSet::new();
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    let constants = graph.initializers.keys().chain(graph.opaque_initializers.keys());
    for name in inputs.chain(constants.map(String::as_str)) {
        if name.is_empty() {
            return Err(Error::user("an input or initializer has no name"));
        }
        if !defined.insert(name) {
            return Err(Error::user(format!("`{name}` is defined twice")));
        }
    }
    Ok(defined)
}

fn check_inputs(graph: &Graph, node: &Node, defined: &HashSet<&str>) -> Result<()> {
    let missing = |name: &&String| !name.is_empty() && !defined.contains(name.as_str());
    let Some(input) = node.inputs.iter().find(missing) else { return Ok(()) };
    if !graph.nodes.iter().any(|node| node.outputs.contains(input)) {
        let error = Error::user(format!("its input `{input}` is not defined"));
        return Err(error
            .help("no node makes it, and it is neither an input of the graph nor an initializer"));
    }
    match cycle(graph, node) {
        Some(cycle) => {
            Err(Error::user(format!("its input `{input}` depends on its own output: {cycle}")))
        }
        None => Err(Error::user(format!("its input `{input}` is made only by a later node"))
            .help("the standard wants nodes in the order in which they are computed")),
    }
}

/// The way from a node over what it reads back to itself, as `a ← b ← a`, if there is one.
fn cycle(graph: &Graph, node: &Node) -> Option<String> {
    const SHOWN: usize = 8;
    let producers = graph.producers();
    let start = *producers.get(node.outputs.iter().find(|name| !name.is_empty())?.as_str())?;
    // From where each node was reached; without recursion, since a cycle may be as long as the graph.
    let mut reached = HashMap::new();
    let mut open = vec![start];
    while let Some(index) = open.pop() {
        for input in &graph.nodes[index].inputs {
            let Some(&producer) = producers.get(input.as_str()) else { continue };
            if reached.contains_key(&producer) {
                continue;
            }
            reached.insert(producer, index);
            if producer != start {
                open.push(producer);
                continue;
            }
            let mut way = vec![graph.nodes[start].label()];
            let mut at = index;
            while at != start && way.len() < SHOWN {
                way.push(graph.nodes[at].label());
                at = reached[&at];
            }
            way.push(if at == start { graph.nodes[start].label() } else { "…" });
            way.reverse();
            return Some(way.join(" ← "));
        }
    }
    None
}

fn check_operator(model: &Model, node: &Node) -> Result<()> {
    if !model
        .opsets
        .iter()
        .any(|set| set.domain == node.domain || (set.domain == "ai.onnx" && node.domain.is_empty()))
    {
        return Err(Error::user(format!(
            "no operator set of domain `{}` is imported",
            node.domain
        )));
    }
    if !node.domain.is_empty() {
        return Ok(());
    }
    let (opset, first) = (model.opset(), ops::first_version(&node.op_type));
    match first {
        Some(first) if opset < first => Err(Error::user(format!(
            "{} exists from opset {first}, the model imports {opset}",
            node.op_type
        ))),
        _ => ops::check_moved(node, opset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Dim, TensorData, ValueInfo};

    fn model(nodes: Vec<Node>) -> Model {
        let value = |name| ValueInfo::f32(name, vec![Dim::Fixed(1)]);
        let graph = Graph {
            nodes,
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            ..Graph::default()
        };
        Model::new(graph, 13)
    }

    #[test]
    fn broken_rules_are_named() {
        let relu = |name: &str, from: &str, to: &str| Node::new(name, "Relu", &[from], &[to]);
        assert!(check(&model(vec![relu("a", "x", "y")])).is_ok());
        for (nodes, expected) in [
            (vec![relu("a", "x", "z")], "no node makes the graph's output `y`"),
            (vec![relu("a", "x", "y"), relu("b", "x", "y")], "`y` is defined twice"),
            (vec![relu("a", "x", "z"), relu("a", "z", "y")], "another node has this name"),
            (vec![relu("a", "z", "y"), relu("b", "x", "z")], "is made only by a later node"),
            (vec![relu("a", "y", "y")], "depends on its own output: a ← a"),
            (
                vec![relu("a", "c", "y"), relu("b", "y", "z"), relu("c", "z", "c")],
                "depends on its own output: a ← c ← b ← a",
            ),
            (vec![relu("a", "x", "x"), relu("b", "x", "y")], "`x` is defined twice"),
            (vec![relu("a", "nowhere", "y")], "`nowhere` is not defined"),
            (vec![Node::new("g", "Gelu", &["x"], &["y"])], "exists from opset 20"),
            (
                vec![
                    Node::new("s", "Squeeze", &["x"], &["y"])
                        .with("axes", Attribute::Ints(vec![0])),
                ],
                "before opset 13",
            ),
        ] {
            let error = check(&model(nodes)).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
        let mut twice = model(vec![relu("a", "x", "y")]);
        twice.graph.initializers.insert("x".to_owned(), TensorData::f32(&[1], &[0.0]));
        assert!(check(&twice).unwrap_err().message.contains("`x` is defined twice"));
    }

    #[test]
    fn a_cycle_as_long_as_the_graph_is_found() {
        let nodes: Vec<Node> = (0..100_000)
            .map(|i| {
                Node::new("", "Relu", &[&format!("v{}", (i + 1) % 100_000)], &[&format!("v{i}")])
            })
            .collect();
        let error = check(&model(nodes)).unwrap_err();
        assert!(error.message.contains("depends on its own output"), "{error}");
    }
}
