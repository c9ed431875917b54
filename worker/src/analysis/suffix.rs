//! The part of a model that differs from another: what comes before it has the same values and need not be computed again.

use std::collections::{HashMap, HashSet};

use crate::Result;
use crate::graph::{Graph, Model, Node, TensorData, ValueInfo};
use crate::passes;

/// The nodes of a variant whose values differ from the base's.
pub struct Suffix {
    /// As a model of its own.
    pub model: Model,
    /// Its inputs: values that the base computes too.
    pub inputs: Vec<String>,
}

/// What of `variant` gives other values than nodes of the same names in `base`.
///
/// # Errors
/// A graph that cannot be cut.
pub fn suffix(base: &Model, variant: &Model) -> Result<Suffix> {
    let (from, to) = (&base.graph, &variant.graph);
    let producers = from.producers();
    let mut same: HashSet<&str> = to.inputs.iter().map(|input| input.name.as_str()).collect();
    let constant = |(name, data): &(&String, &TensorData)| {
        from.initializers.get(*name).is_some_and(|own| equal(own, data))
    };
    same.extend(to.initializers.iter().filter(constant).map(|(name, _)| name.as_str()));
    let mut kept: Vec<&Node> = Vec::new();
    for node in &to.nodes {
        let twin = node.outputs.first().and_then(|output| producers.get(output.as_str()));
        let is_same = twin.is_some_and(|&index| is_twin(&from.nodes[index], node))
            && node.inputs.iter().all(|name| name.is_empty() || same.contains(name.as_str()));
        if is_same {
            same.extend(node.outputs.iter().map(String::as_str));
        } else {
            kept.push(node);
        }
    }
    let made: HashSet<&str> =
        kept.iter().flat_map(|node| &node.outputs).map(String::as_str).collect();
    // An output that does not differ is one that the part passes through.
    let read = kept
        .iter()
        .flat_map(|node| &node.inputs)
        .chain(to.outputs.iter().map(|output| &output.name));
    let mut constants: HashMap<&str, &TensorData> = HashMap::new();
    let mut inputs: Vec<String> = Vec::new();
    for name in read.filter(|name| !name.is_empty() && !made.contains(name.as_str())) {
        match to.initializers.get(name) {
            Some(data) => drop(constants.insert(name, data)),
            None if inputs.contains(name) => {}
            None => inputs.push(name.clone()),
        }
    }
    let mut model = Model {
        graph: Graph {
            nodes: kept.into_iter().cloned().collect(),
            inputs: inputs
                .iter()
                .map(|name| ValueInfo {
                    name: name.clone(),
                    dtype: None,
                    shape: None,
                    opaque: None,
                })
                .collect(),
            outputs: to.outputs.clone(),
            initializers: constants
                .into_iter()
                .map(|(name, data)| (name.to_owned(), data.clone()))
                .collect(),
            ..Graph::default()
        },
        ..variant.clone()
    };
    passes::remove_dead(&mut model)?;
    let inputs = model.graph.inputs.iter().map(|input| input.name.clone()).collect();
    Ok(Suffix { model, inputs })
}

/// Whether two nodes do the same to their inputs, and have the same names of inputs and outputs.
fn is_twin(a: &Node, b: &Node) -> bool {
    (&a.op_type, &a.domain, &a.inputs, &a.outputs, &a.attributes)
        == (&b.op_type, &b.domain, &b.inputs, &b.outputs, &b.attributes)
}

/// Copies of a model share their bytes, which need not be compared then.
fn equal(a: &TensorData, b: &TensorData) -> bool {
    let shared = a.bytes.as_ptr() == b.bytes.as_ptr() && a.bytes.len() == b.bytes.len();
    a.dtype == b.dtype && a.shape == b.shape && (shared || a.bytes == b.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Dim;

    fn model(nodes: Vec<Node>, scale: f32) -> Model {
        let mut graph = Graph {
            nodes,
            inputs: vec![ValueInfo::f32("x", vec![Dim::Fixed(2)])],
            outputs: vec![ValueInfo::f32("y", vec![Dim::Fixed(2)])],
            ..Graph::default()
        };
        graph.initializers.insert("s".to_owned(), TensorData::f32(&[], &[scale]));
        graph.initializers.insert("t".to_owned(), TensorData::f32(&[], &[2.0]));
        Model::new(graph, 17)
    }

    fn names(model: &Model) -> Vec<&str> {
        model.graph.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn only_what_differs_is_left() {
        let chain = |middle: &str| {
            vec![
                Node::new("a", "Mul", &["x", "t"], &["va"]),
                Node::new("b", middle, &["va"], &["vb"]),
                Node::new("c", "Mul", &["va", "s"], &["vc"]),
                Node::new("d", "Add", &["vb", "vc"], &["y"]),
            ]
        };
        let base = model(chain("Relu"), 1.0);
        let of = |variant: &Model| suffix(&base, variant).unwrap();
        let operator = of(&model(chain("Abs"), 1.0));
        assert_eq!(names(&operator.model), ["b", "d"]);
        assert_eq!(operator.inputs, ["va", "vc"]);
        let constant = of(&model(chain("Relu"), 3.0));
        assert_eq!(names(&constant.model), ["c", "d"]);
        assert_eq!(constant.model.graph.initializers.len(), 1);
        let nothing = of(&base);
        assert_eq!((nothing.model.graph.nodes.len(), nothing.inputs), (0, vec!["y".to_owned()]));
    }
}
