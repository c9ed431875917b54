//! Whether a model is one: the rules of <https://onnx.ai/onnx/repo-docs/IR.html> that a rewrite could break.

use std::collections::HashSet;

use crate::graph::{Graph, Model, Node};
use crate::{Error, Result, ops};

/// Checks names, single assignment, order of nodes, that all inputs are defined, and that operators
/// exist in the operator set that the model imports.
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
    for name in inputs.chain(graph.initializers.keys().map(String::as_str)) {
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
    // Initializers of a type that nothing here understands are kept encoded; one may be it.
    let encoded = graph.opaque.windows(input.len()).any(|part| part == input.as_bytes());
    if encoded {
        return Ok(());
    }
    let later = graph.nodes.iter().any(|node| node.outputs.contains(input));
    let reason = if later { "is made only by a later node" } else { "is not defined" };
    Err(Error::user(format!("its input `{input}` {reason}")))
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
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, ValueInfo};

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
            (vec![relu("a", "nowhere", "y")], "`nowhere` is not defined"),
            (vec![Node::new("g", "Gelu", &["x"], &["y"])], "exists from opset 20"),
        ] {
            let error = check(&model(nodes)).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
