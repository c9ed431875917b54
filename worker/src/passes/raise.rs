//! A later opset, for types and attributes that the model's own does not have.

use crate::Result;
use crate::graph::{Attribute, Model, Node, TensorData};

use super::set_opset;

/// Reductions whose axes became an input in opset 18.
const REDUCTIONS: [&str; 9] = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

/// Raises the opset where the model's is lower. Axes of reductions become inputs, a Split into equal parts says how many; whatever
/// else came to mean something else in between is refused.
///
/// # Errors
/// An operator that means something else in the later opset.
pub fn raise_opset(model: &mut Model, opset: i64) -> Result<()> {
    let old = model.opset();
    if opset <= old {
        return Ok(());
    }
    if old < 18 && opset >= 18 {
        axes_to_inputs(model)?;
        count_parts(model);
    }
    set_opset(model, opset).map_err(|error| {
        error.help(format!(
            "int4 and blocks need opset 21, float8e4m3fn 19: export the model with opset {opset}"
        ))
    })
}

fn axes_to_inputs(model: &mut Model) -> Result<()> {
    let graph = &mut model.graph;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if !node.domain.is_empty() || !REDUCTIONS.contains(&node.op_type.as_str()) {
            continue;
        }
        let Some(axes) = node.ints("axes").map_err(|error| error.at(node.place()))? else {
            continue;
        };
        let data = TensorData::i64(&[axes.len() as i64], axes);
        let name = graph.fresh_name(&format!("{}_axes", graph.nodes[index].label()));
        graph.initializers.insert(name.clone(), data);
        let node = &mut graph.nodes[index];
        node.attributes.shift_remove("axes");
        node.inputs.truncate(1);
        node.inputs.push(name);
    }
    Ok(())
}

/// Opset 18 wants `num_outputs` of a Split without lengths, which has been one into equal parts since opset 13.
fn count_parts(model: &mut Model) {
    let even = |node: &&mut Node| {
        node.domain.is_empty() && node.op_type == "Split" && node.input(1).is_none()
    };
    if model.opset() >= 13 {
        for node in model.graph.nodes.iter_mut().filter(even) {
            let count = node.outputs.len() as i64;
            node.attributes.insert("num_outputs".to_owned(), Attribute::Int(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, ValueInfo};
    use crate::interp::{Mode, Options, Program};

    fn model(node: Node) -> Model {
        let value = |name: &str| ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) };
        let graph = Graph {
            nodes: vec![node],
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    #[test]
    fn reductions_compute_the_same_in_the_opset_of_int4() {
        let node = Node::new("mean", "ReduceMean", &["x"], &["y"])
            .with("axes", Attribute::Ints(vec![-1]))
            .with("keepdims", Attribute::Int(0));
        let mut raised = model(node);
        let run = |model: &Model| {
            let mut program = Program::compile(model, &Options::default()).unwrap();
            let x = tch::Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 6.0]).reshape([2, 2]);
            program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
        };
        let before = run(&raised);
        raise_opset(&mut raised, 13).unwrap();
        assert_eq!(raised.opset(), 17, "it has more already");
        raise_opset(&mut raised, 21).unwrap();
        assert_eq!((raised.opset(), raised.ir_version), (21, 10));
        assert_eq!(raised.graph.nodes[0].inputs, ["x", "mean_axes"]);
        assert_eq!(run(&raised), before);
    }

    #[test]
    fn a_split_into_equal_parts_says_how_many() {
        let parts = Node::new("s", "Split", &["x"], &["y", "z"]);
        let mut raised = model(parts.with("axis", Attribute::Int(1)));
        let run = |model: &Model| {
            let mut program = Program::compile(model, &Options::default()).unwrap();
            let x = tch::Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 6.0]).reshape([1, 4]);
            program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
        };
        let before = run(&raised);
        raise_opset(&mut raised, 21).unwrap();
        assert_eq!(raised.graph.nodes[0].int("num_outputs", 0).unwrap(), 2);
        assert_eq!(run(&raised), before);
    }

    #[test]
    fn an_operator_that_changed_is_named() {
        let mut model = model(Node::new("s", "GridSample", &["x", "grid"], &["y"]));
        let error = raise_opset(&mut model, 21).unwrap_err();
        assert!(error.message.starts_with("node \"s\" (GridSample)"), "{error}");
        assert!(error.help.unwrap().ends_with("export the model with opset 21"));
    }
}
