//! A model whose inner values are outputs too, for runtimes that show nothing else of an engine.

use std::collections::HashSet;

use crate::graph::{Dim, Graph, Model, Node, ValueInfo};
use crate::ops::WEIGHTED;
use crate::{Result, passes};

/// What convolutions and matrix products of `model` read and what is computed from its inputs, of the values `names`, in the order of the graph.
pub fn seams(model: &Model, names: &[String]) -> Vec<String> {
    let graph = &model.graph;
    let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
    let mut computed: HashSet<&str> =
        graph.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut read = HashSet::new();
    for node in &graph.nodes {
        if WEIGHTED.contains(&&*node.op_type) {
            read.extend(node.inputs.iter().take(2).map(String::as_str));
        }
        if node.inputs.iter().any(|input| computed.contains(input.as_str())) {
            computed.extend(node.outputs.iter().map(String::as_str));
        }
    }
    let made = graph.nodes.iter().flat_map(|node| &node.outputs);
    let is_seam = |name: &&String| {
        let name = name.as_str();
        wanted.contains(name)
            && read.contains(name)
            && computed.contains(name)
            && !graph.is_output(name)
    };
    made.filter(is_seam).cloned().collect()
}

/// `model` for a batch of `batch`, whose `values` (name and extents) are outputs behind its own; the name of each output there, and of the value that it is.
///
/// What a DequantizeLinear gives is shown by a second one that reads the same integers: an output of the first would part it from the kernel that
/// takes it in, and the engine would be another.
///
/// # Errors
/// A model whose batch cannot be fixed.
pub fn with_outputs(
    model: &Model,
    batch: u32,
    values: &[(String, Vec<i64>)],
) -> Result<(Model, Vec<String>)> {
    let mut model = model.clone();
    passes::set_batch(&mut model, Some(batch))?;
    let graph = &mut model.graph;
    let mut names: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    for (name, extents) in values {
        let own = shown(graph, name);
        graph.outputs.push(ValueInfo::f32(&own, extents.iter().copied().map(Dim::Fixed).collect()));
        names.push(name.clone());
    }
    Ok((model, names))
}

/// Name of a value that is `value` and may be an output.
fn shown(graph: &mut Graph, value: &str) -> String {
    let is_maker = |node: &Node| node.outputs.first().is_some_and(|output| output == value);
    let Some(place) = graph.nodes.iter().position(is_maker) else { return value.to_owned() };
    if graph.nodes[place].op_type != "DequantizeLinear" {
        return value.to_owned();
    }
    let own = graph.fresh_name(&format!("{value}_shown"));
    let mut second = graph.nodes[place].clone();
    second.name.clone_from(&own);
    second.outputs = vec![own.clone()];
    graph.nodes.insert(place + 1, second);
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::TensorData;

    /// x → Q → DQ → Conv (its weights behind a DQ) → Relu → Q → DQ → MatMul → y.
    fn model() -> Model {
        let node = |op: &str, inputs: &[&str], output: &str| {
            Node::new(&format!("make {output}"), op, inputs, &[output])
        };
        let pair = |from: &str, to: &str| {
            let integers = format!("{to}_q");
            [
                node("QuantizeLinear", &[from, "scale", "zero"], &integers),
                node("DequantizeLinear", &[&integers, "scale", "zero"], to),
            ]
        };
        let mut nodes = pair("x", "x_dq").to_vec();
        nodes.push(node("DequantizeLinear", &["w", "scale", "zero"], "w_dq"));
        nodes.push(node("Conv", &["x_dq", "w_dq"], "c"));
        nodes.push(node("Relu", &["c"], "r"));
        nodes.extend(pair("r", "r_dq"));
        nodes.push(node("MatMul", &["r_dq", "v"], "y"));
        let mut graph = Graph { nodes, ..Graph::default() };
        let fixed = |extents: &[i64]| extents.iter().copied().map(Dim::Fixed).collect();
        graph.inputs.push(ValueInfo::f32("x", fixed(&[8, 1, 4, 4])));
        graph.outputs.push(ValueInfo::f32("y", fixed(&[8, 2, 4, 4])));
        graph.initializers.insert("scale".to_owned(), TensorData::f32(&[], &[0.02]));
        Model::new(graph, 13)
    }

    #[test]
    fn layers_inputs_are_shown_and_weights_are_not() {
        let all = ["x_dq", "w_dq", "c", "r", "r_dq", "y"].map(str::to_owned);
        assert_eq!(seams(&model(), &all), ["x_dq", "r_dq"]);
        assert_eq!(seams(&model(), &all[1..]), ["r_dq"]);
    }

    #[test]
    fn the_pair_of_a_kernel_stays_its_own() {
        let values = [("r_dq".to_owned(), vec![2, 2, 4, 4]), ("c".to_owned(), vec![2, 2, 4, 4])];
        let (shown, names) = with_outputs(&model(), 2, &values).unwrap();
        assert_eq!(names, ["y", "r_dq", "c"]);
        let outputs: Vec<&str> =
            shown.graph.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(outputs, ["y", "r_dq_shown", "c"]);
        let first =
            |shape: &Option<Vec<Dim>>| shape.as_ref().and_then(|dims| dims.first().cloned());
        assert_eq!(first(&shown.graph.inputs[0].shape), Some(Dim::Fixed(2)));
        assert_eq!(first(&shown.graph.outputs[0].shape), Some(Dim::Fixed(2)));
        let readers = shown.graph.consumers();
        assert_eq!(readers["r_dq_q"].len(), 2);
        assert_eq!(readers["r_dq"].len(), 1, "the MatMul alone");
    }
}
