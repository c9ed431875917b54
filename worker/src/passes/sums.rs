//! Sums of any number of values, written as additions of two: what knows residual branches, such as the rules of placement and the
//! fusions of runtimes, knows `Add`.

use crate::Result;
use crate::graph::{Model, Node};

/// Makes an `Add` of each `Sum` of two values, additions one behind the other of one of more, which is the order in which they are added
/// anyway, and an `Identity` of one of a single value. Returns how many there were.
pub fn to_additions(model: &mut Model) -> Result<usize> {
    let graph = &mut model.graph;
    let is_sum = |node: &Node| {
        let whole = !node.inputs.is_empty() && node.inputs.iter().all(|name| !name.is_empty());
        node.domain.is_empty() && node.op_type == "Sum" && node.outputs.len() == 1 && whole
    };
    let mut changed = 0;
    while let Some(index) = graph.nodes.iter().position(is_sum) {
        changed += 1;
        let sum = graph.nodes[index].clone();
        let (last, so_far) = match &sum.inputs[..] {
            [only] => {
                graph.nodes[index] = Node::new(&sum.name, "Identity", &[only], &[&sum.outputs[0]]);
                continue;
            }
            [first, second] => (second, first.clone()),
            [before @ .., last] => {
                let partial = graph.fresh_name(&format!("{}_of_{}", sum.outputs[0], before.len()));
                let inputs: Vec<&str> = before.iter().map(String::as_str).collect();
                graph.nodes.insert(index, Node::new(&partial, "Sum", &inputs, &[&partial]));
                (last, partial)
            }
            [] => continue,
        };
        let place = index + usize::from(sum.inputs.len() > 2);
        graph.nodes[place] = Node::new(&sum.name, "Add", &[&so_far, last], &[&sum.outputs[0]]);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, TensorData, ValueInfo};
    use crate::interp::{Mode, Options, Program};

    #[test]
    fn sums_become_additions_that_compute_the_same() {
        for (inputs, operators) in [
            (vec!["x"], vec!["Identity"]),
            (vec!["x", "a"], vec!["Add"]),
            (vec!["a", "x", "b", "x"], vec!["Add", "Add", "Add"]),
        ] {
            let value = |name: &str| ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) };
            let graph = Graph {
                nodes: vec![Node::new("s", "Sum", &inputs, &["y"])],
                inputs: vec![value("x")],
                outputs: vec![value("y")],
                initializers: [("a", [1e8, 0.1]), ("b", [-1e8, 0.3])]
                    .map(|(name, data)| (name.to_owned(), TensorData::f32(&[2], &data)))
                    .into(),
                ..Graph::default()
            };
            let mut model = Model::new(graph, 17);
            let run = |model: &Model| {
                let mut program = Program::compile(model, &Options::default()).unwrap();
                let x = tch::Tensor::from_slice(&[1.25_f32, 3.0]);
                program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
            };
            let before = run(&model);
            assert_eq!(to_additions(&mut model).unwrap(), operators.len());
            let found: Vec<&str> =
                model.graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
            assert_eq!(found, operators);
            let last = model.graph.nodes.last().unwrap();
            assert_eq!((last.name.as_str(), last.outputs[0].as_str()), ("s", "y"));
            assert_eq!(run(&model), before);
        }
    }
}
