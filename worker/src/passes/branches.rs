//! If nodes whose condition is known: what the branch that is taken computes, in their place. Nothing here executes an If.

use std::collections::HashMap;

use crate::Result;
use crate::graph::{Attribute, Graph, Model, Node};
use crate::onnx;

/// Puts the nodes of the branch that is taken in the place of each If whose condition is a constant, or follows from constants and from
/// shapes. Names of the branch's own values that others have are changed; values of the graph around it keep theirs.
///
/// # Errors
/// A branch that cannot be read.
pub(super) fn take_branches(model: &mut Model) -> Result<usize> {
    let mut taken = 0;
    // A branch may hold another If.
    loop {
        let known = known(model)?;
        let mut changed = 0;
        // From the last on, so that places stay.
        for (index, branch) in known.into_iter().rev() {
            changed += usize::from(put(&mut model.graph, index, branch));
        }
        if changed == 0 {
            return Ok(taken);
        }
        taken += changed;
    }
}

/// The If nodes whose condition is known, with the branch that is taken.
fn known(model: &Model) -> Result<Vec<(usize, Graph)>> {
    let is_if = |node: &Node| node.domain.is_empty() && node.op_type == "If";
    let mut known = Vec::new();
    if !model.graph.nodes.iter().any(is_if) {
        return Ok(known);
    }
    let mut folded = model.clone();
    super::shapes::fold(&mut folded)?;
    super::constants::fold(&mut folded)?;
    for (index, node) in model.graph.nodes.iter().enumerate().filter(|(_, node)| is_if(node)) {
        let condition = node.input(0).and_then(|name| folded.graph.initializers.get(name));
        let condition = condition.and_then(crate::graph::TensorData::whole_numbers);
        let Some([condition]) = condition.as_deref() else { continue };
        let name = if *condition == 0 { "else_branch" } else { "then_branch" };
        let Some(Attribute::Opaque(encoded)) = node.attributes.get(name) else { continue };
        let branch = onnx::branch(encoded).map_err(|error| error.at(node.place()))?;
        known.extend(branch.map(|branch| (index, branch)));
    }
    Ok(known)
}

/// Puts a branch in the place of the If; `false`: it cannot be, and all is as before.
fn put(graph: &mut Graph, index: usize, branch: Graph) -> bool {
    let outputs = graph.nodes[index].outputs.clone();
    let made = branch.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
    let mut own = branch.initializers.keys().chain(made);
    // Graphs within it read its values by names that are not looked into here.
    let has_graphs = branch
        .nodes
        .iter()
        .any(|node| node.attributes.values().any(|value| matches!(value, Attribute::Opaque(_))));
    if branch.outputs.len() != outputs.len()
        || !branch.inputs.is_empty()
        || !branch.opaque_initializers.is_empty()
        || has_graphs && own.any(|name| graph.fresh_name(name) != *name)
    {
        return false;
    }
    // Only from where the branch makes it on: a name that it has not made yet is that of a value around it.
    let mut names: HashMap<String, String> = HashMap::new();
    for (name, data) in branch.initializers {
        let fresh = graph.fresh_name(&name);
        graph.initializers.insert(fresh.clone(), data);
        names.insert(name, fresh);
    }
    let mut place = index;
    for mut node in branch.nodes {
        for input in &mut node.inputs {
            if let Some(fresh) = names.get(input) {
                input.clone_from(fresh);
            }
        }
        for output in node.outputs.iter_mut().filter(|name| !name.is_empty()) {
            let fresh = graph.fresh_name(output);
            names.insert(std::mem::replace(output, fresh.clone()), fresh);
        }
        if !node.name.is_empty() {
            node.name = graph.fresh_name(&node.name);
        }
        graph.nodes.insert(place, node);
        place += 1;
    }
    let node = graph.nodes.remove(place);
    let given = branch.outputs.iter().zip(&outputs).filter(|(_, output)| !output.is_empty());
    for (own, output) in given {
        let value = names.get(&own.name).unwrap_or(&own.name);
        let name = graph.fresh_name(node.label());
        graph.nodes.insert(place, Node::new(&name, "Identity", &[value], &[output]));
        place += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DType, TensorData, ValueInfo};
    use crate::interp::{Mode, Options, Program};

    fn value(name: &str) -> ValueInfo {
        ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) }
    }

    /// `z` = x · factor + 1: both branches of `choice` multiply what is around them, with names that the graph has too.
    fn model(nodes: Vec<Node>, factor: [f32; 2]) -> Model {
        let branch = |name: &str, factor: f32| {
            let scaled = Node::new("add", "Mul", &["x", "one"], &["sum"]);
            let plain = Node::new("plain", "Identity", &["sum"], &["plain"]);
            let one = [("one".to_owned(), TensorData::f32(&[], &[factor]))].into_iter().collect();
            let graph = Graph {
                nodes: vec![scaled, plain],
                outputs: vec![value("plain")],
                initializers: one,
                ..Graph::default()
            };
            onnx::graph_attribute(name, &graph)
        };
        let choice = Node::new("choice", "If", &["condition"], &["y"])
            .with("then_branch", branch("then_branch", factor[0]))
            .with("else_branch", branch("else_branch", factor[1]));
        let add = Node::new("add", "Add", &["y", "one"], &["sum"]);
        let graph = Graph {
            nodes: nodes.into_iter().chain([choice, add]).collect(),
            inputs: vec![ValueInfo::f32("x", vec![crate::graph::Dim::Fixed(2)])],
            outputs: vec![value("sum")],
            initializers: [("one".to_owned(), TensorData::f32(&[], &[1.0]))].into_iter().collect(),
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    fn run(model: &Model) -> Vec<f32> {
        let mut program = Program::compile(model, &Options::default()).unwrap();
        let x = tch::Tensor::from_slice(&[1.0_f32, 2.0]);
        let made = program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0);
        Vec::try_from(made).unwrap()
    }

    #[test]
    fn the_branch_that_a_constant_takes_stands_in_its_place() {
        for (condition, expected) in [(1, vec![4.0, 7.0]), (0, vec![6.0, 11.0])] {
            let mut model = model(Vec::new(), [3.0, 5.0]);
            let data =
                TensorData { dtype: DType::Bool, shape: vec![], bytes: vec![condition].into() };
            model.graph.initializers.insert("condition".to_owned(), data);
            assert_eq!(take_branches(&mut model).unwrap(), 1);
            onnx::check(&model).unwrap();
            assert_eq!(run(&model), expected);
            assert_eq!(model.graph.outputs[0].name, "sum", "what is outside keeps its name");
        }
    }

    #[test]
    fn what_follows_from_shapes_is_known_and_what_follows_from_values_is_not() {
        let mut of_shape = model(
            vec![
                Node::new("size", "Size", &["fixed"], &["size"]),
                Node::new("condition", "Cast", &["size"], &["condition"])
                    .with("to", Attribute::Int(9)),
            ],
            [3.0, 5.0],
        );
        of_shape.graph.initializers.insert("fixed".to_owned(), TensorData::f32(&[2], &[0.0; 2]));
        super::super::inference_form(&mut of_shape).unwrap();
        assert_eq!(run(&of_shape), [4.0, 7.0]);
        let cast = Node::new("condition", "Cast", &["x"], &["condition"]);
        let mut of_values = model(vec![cast.with("to", Attribute::Int(9))], [3.0, 5.0]);
        assert_eq!(take_branches(&mut of_values).unwrap(), 0);
        assert_eq!(of_values.graph.nodes.len(), 3);
    }

    #[test]
    fn a_branch_within_a_branch_is_taken_too() {
        let truth = TensorData { dtype: DType::Bool, shape: vec![], bytes: vec![1].into() };
        let mut outer = model(Vec::new(), [3.0, 5.0]);
        outer.graph.initializers.insert("condition".to_owned(), truth.clone());
        let inner = outer.graph.nodes[0].clone();
        let branch = Graph {
            nodes: vec![Node { outputs: vec!["inner".to_owned()], ..inner }],
            outputs: vec![value("inner")],
            ..Graph::default()
        };
        outer.graph.nodes[0]
            .attributes
            .insert("then_branch".to_owned(), onnx::graph_attribute("then_branch", &branch));
        assert_eq!(take_branches(&mut outer).unwrap(), 2);
        assert_eq!(run(&outer), [4.0, 7.0]);
        // Its names are the graph's too, and what reads them within its graphs is not looked into.
        let mut kept = model(Vec::new(), [3.0, 5.0]);
        kept.graph.initializers.insert("condition".to_owned(), truth);
        let inner = Node { outputs: vec!["sum".to_owned()], ..kept.graph.nodes[0].clone() };
        let branch = Graph { nodes: vec![inner], outputs: vec![value("sum")], ..Graph::default() };
        kept.graph.nodes[0]
            .attributes
            .insert("then_branch".to_owned(), onnx::graph_attribute("then_branch", &branch));
        assert_eq!(take_branches(&mut kept).unwrap(), 0);
    }
}
