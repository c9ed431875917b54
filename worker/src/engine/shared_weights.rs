//! Weights that several layers read, as heads of a detector on each level of its pyramid do, made a weight for each.
//!
//! Where ONNX Runtime makes int8 weights uint8 ("session.x64quantprecision"), it names what it makes after the weight, once for each layer that reads
//! it, and fails at the second: "Attempt to replace the existing tensor". So it does with zero points.

use std::collections::HashSet;

use crate::graph::{DType, Graph, Model};

/// The model with a weight and a DequantizeLinear for each layer; `None` where no int8 weight has several readers.
pub(super) fn apart(model: &Model) -> Option<Model> {
    let shared =
        |graph: &Graph| (0..graph.nodes.len()).find_map(|index| second_reader(graph, index));
    shared(&model.graph)?;
    let mut model = model.clone();
    let graph = &mut model.graph;
    // Those that read one stored weight, each by a node of its own.
    let mut seen = HashSet::new();
    for index in 0..graph.nodes.len() {
        if is_weight(graph, index) && !seen.insert(graph.nodes[index].inputs[0].clone()) {
            graph.nodes[index].inputs = copies(graph, index);
        }
    }
    while let Some((index, (reader, input))) =
        (0..graph.nodes.len()).find_map(|index| Some((index, second_site(graph, index)?)))
    {
        let mut own = graph.nodes[index].clone();
        own.inputs = copies(graph, index);
        own.name = graph.fresh_name(&own.name);
        own.outputs[0] = graph.fresh_name(&own.outputs[0]);
        graph.nodes[reader].inputs[input].clone_from(&own.outputs[0]);
        graph.nodes.insert(index, own);
    }
    Some(model)
}

/// Whether a node dequantizes a stored int8 weight.
fn is_weight(graph: &Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let stored = node.input(0).and_then(|name| graph.initializers.get(name));
    node.op_type == "DequantizeLinear"
        && stored.is_some_and(|data| data.dtype == DType::I8 && data.shape.len() > 1)
}

/// That a weight which node `index` dequantizes has another reader than one.
fn second_reader(graph: &Graph, index: usize) -> Option<()> {
    let name = is_weight(graph, index).then(|| graph.nodes[index].input(0))??;
    let others = graph.nodes.iter().filter(|node| node.input(0) == Some(name)).count() > 1;
    (others || second_site(graph, index).is_some()).then_some(())
}

/// The second input that reads what node `index` makes of a weight.
fn second_site(graph: &Graph, index: usize) -> Option<(usize, usize)> {
    let value = is_weight(graph, index).then(|| graph.nodes[index].outputs.first())??;
    let nodes = graph.nodes.iter().enumerate();
    let mut sites = nodes.flat_map(|(reader, node)| {
        let inputs = node.inputs.iter().enumerate().filter(|(_, name)| *name == value);
        inputs.map(move |(input, _)| (reader, input))
    });
    sites.nth(1)
}

/// Adds the constants that node `index` reads once more, zero points too; their names.
fn copies(graph: &mut Graph, index: usize) -> Vec<String> {
    let names = graph.nodes[index].inputs.clone();
    let copy = |name: String| {
        let Some(data) = graph.initializers.get(&name).cloned() else { return name };
        let own = graph.fresh_name(&name);
        graph.initializers.insert(own.clone(), data);
        own
    };
    names.into_iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, TensorData};

    #[test]
    fn each_layer_gets_a_weight_of_its_own() {
        let dequantize = |to: &str| Node::new(to, "DequantizeLinear", &["w", "s", "z"], &[to]);
        let conv =
            |to: &str, from: &str, weight: &str| Node::new(to, "Conv", &[from, weight], &[to]);
        let mut graph = Graph {
            nodes: vec![
                dequantize("d"),
                dequantize("e"),
                conv("a", "x", "d"),
                conv("b", "a", "d"),
                conv("c", "b", "e"),
            ],
            ..Graph::default()
        };
        graph.initializers.insert("w".to_owned(), TensorData::i8(&[1, 1, 1, 1], &[3]));
        graph.initializers.insert("s".to_owned(), TensorData::f32(&[], &[0.1]));
        graph.initializers.insert("z".to_owned(), TensorData::i8(&[], &[0]));
        let model = Model::new(graph, 17);
        let apart = apart(&model).unwrap();
        let producers = apart.graph.producers();
        let stored: HashSet<&str> = ["a", "b", "c"]
            .into_iter()
            .map(|layer| {
                let weight = &apart.graph.nodes[producers[layer]].inputs[1];
                apart.graph.nodes[producers[weight.as_str()]].inputs[0].as_str()
            })
            .collect();
        assert_eq!(stored.len(), 3, "{stored:?}");
        assert!(stored.iter().all(|name| apart.graph.initializers[*name].bytes[..] == [3]));
        assert_eq!(super::apart(&apart), None);
    }
}
