//! Parameters that an exporter merged since they were equal, made apart again before they are trained.
//!
//! PyTorch's exporters write one initializer for all tensors of the same values. Of a network that was not trained yet these are all scales of its
//! normalizations (1), all shifts and many biases (0), and running variances with the scales: trained as one they would stay equal, and a running
//! mean that is a shift too cannot be trained at all. The older exporter keeps the names, in Identity nodes; the newer one keeps nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::parameters::{Role, roles};
use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};
use crate::ops;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// Constants that are a reader's own now, by their names.
    pub made: Vec<String>,
    /// Weights that several layers read, with how many: whether they were one cannot be seen. They are trained as one.
    pub tied: Vec<(String, usize)>,
}

/// A place that reads a constant: node and input.
type Use = (usize, usize);

/// Gives each layer parameters of its own where an exporter merged equal ones:
/// - what an Identity node names has the name in its own right;
/// - of biases, of scales and shifts of normalizations, of slopes and of factors that are one number all over, each reader has a copy. What a module
///   reads that is used several times stays one: its weight is shared as often;
/// - running statistics are no parameter.
pub fn take_apart(model: &mut Model) -> Apart {
    let graph = &mut model.graph;
    // A graph in an attribute may read any value by its name.
    let opaque = |node: &Node| node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)));
    if graph.nodes.iter().any(opaque) {
        return Apart::default();
    }
    let mut apart = Apart { made: named(graph), tied: Vec::new() };
    let floats = graph.initializers.iter().filter(|(_, data)| data.dtype == DType::F32);
    let inputs: HashSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    let floats = floats.map(|(name, _)| name.as_str()).filter(|name| !inputs.contains(name));
    let roles = roles(graph, &floats.collect());
    let uses = uses(graph);
    let weights = roles.iter().filter(|(_, role)| **role == Role::Weight);
    let weights = weights.filter_map(|(name, _)| Some((name.clone(), uses.get(name)?.len())));
    let mut tied: Vec<(String, usize)> = weights.filter(|(_, count)| *count > 1).collect();
    tied.sort_unstable();
    let reused: HashSet<usize> = tied.iter().map(|(_, count)| *count).collect();
    let is_statistic =
        |&(node, input): &Use| ops::running_statistics(&graph.nodes[node]).contains(&input);
    // Places that are to read a constant of their own, together.
    let mut copies: Vec<(Vec<Use>, String)> = Vec::new();
    for (name, places) in uses.iter().filter(|(_, places)| places.len() > 1) {
        let role = roles.get(name);
        if role.is_some_and(|role| matches!(role, Role::Weight | Role::Scale)) {
            continue;
        }
        if role.is_none() && !places.iter().any(is_statistic) {
            continue;
        }
        let equal = is_one_number(&graph.initializers[name]);
        // What places read in the same way may be a module's that is used several times.
        let mut ways: BTreeMap<(&str, usize), Vec<Use>> = BTreeMap::new();
        for &(node, input) in places {
            let operator = graph.nodes[node].op_type.as_str();
            // Values of a trained network are equal because they are one, but what is a parameter is no statistic.
            let way =
                if equal || is_statistic(&(node, input)) { (operator, input) } else { ("", 0) };
            ways.entry(way).or_default().push((node, input));
        }
        let own = ways.into_values().flat_map(|places| {
            let several = equal && !reused.contains(&places.len());
            if several { places.into_iter().map(|it| vec![it]).collect() } else { vec![places] }
        });
        let mut own: Vec<Vec<Use>> = own.collect();
        // The first in the file keeps the name; a parameter before a statistic.
        own.sort_unstable_by_key(|places| (is_statistic(&places[0]), places[0]));
        copies.extend(own.into_iter().skip(1).map(|places| (places, name.clone())));
    }
    copies.sort_unstable();
    for (places, name) in copies {
        let own = graph.fresh_name(&name);
        let data = graph.initializers[&name].clone();
        graph.initializers.insert(own.clone(), data);
        for (node, input) in places {
            graph.nodes[node].inputs[input].clone_from(&own);
        }
        apart.made.push(own);
    }
    apart.tied = tied;
    apart
}

/// Lets the outputs of Identity nodes that hand a float constant on be constants; their names.
fn named(graph: &mut Graph) -> Vec<String> {
    let mut made = Vec::new();
    // Both halves of a pair read one scale, whatever lies between.
    let of_pairs = graph
        .nodes
        .iter()
        .filter(|node| ["QuantizeLinear", "DequantizeLinear"].contains(&node.op_type.as_str()));
    let scales: HashSet<String> =
        of_pairs.flat_map(|node| node.inputs.iter().skip(1).cloned()).collect();
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        let input = node.input(0).filter(|_| node.op_type == "Identity" && node.domain.is_empty());
        let data = input.and_then(|name| graph.initializers.get(name));
        match (data, node.outputs.first()) {
            (Some(data), Some(name))
                if data.dtype == DType::F32 && !graph.is_output(name) && !scales.contains(name) =>
            {
                let data = data.clone();
                made.push(name.clone());
                graph.initializers.insert(name.clone(), data);
            }
            _ => graph.nodes.push(node),
        }
    }
    made
}

/// Where each constant is read.
fn uses(graph: &Graph) -> HashMap<String, Vec<Use>> {
    let mut uses: HashMap<String, Vec<Use>> = HashMap::new();
    for (node, read) in graph.nodes.iter().enumerate() {
        for (input, name) in read.inputs.iter().enumerate() {
            if graph.initializers.contains_key(name) {
                uses.entry(name.clone()).or_default().push((node, input));
            }
        }
    }
    uses
}

/// Whether all elements are the same, and there are several.
fn is_one_number(data: &TensorData) -> bool {
    let size = data.dtype.bits() / 8;
    size > 0 && data.len() > 1 && data.bytes.chunks(size).all(|chunk| *chunk == data.bytes[..size])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: i64 = 4;

    fn model(nodes: Vec<Node>, constants: &[(&str, f32)]) -> Model {
        let mut graph = Graph { nodes, ..Graph::default() };
        for (name, value) in constants {
            let data = TensorData::f32(&[CHANNELS], &[*value; CHANNELS as usize]);
            graph.initializers.insert((*name).to_owned(), data);
        }
        for (place, name) in ["w1", "w2"].iter().enumerate() {
            let values: Vec<f32> = (0..16).map(|i| (i + place) as f32 / 8.0).collect();
            graph.initializers.insert((*name).to_owned(), TensorData::f32(&[4, 4, 1, 1], &values));
        }
        Model::new(graph, 17)
    }

    fn read<'a>(model: &'a Model, node: &str) -> &'a [String] {
        let node = model.graph.nodes.iter().find(|it| it.name == node).unwrap();
        &node.inputs[1..]
    }

    /// As the newer exporter writes two fresh convolutions with BatchNormalization: five constants are two.
    fn fresh() -> Model {
        model(
            vec![
                Node::new("conv1", "Conv", &["x", "w1", "zero"], &["a"]),
                Node::new(
                    "bn1",
                    "BatchNormalization",
                    &["a", "one", "zero", "zero", "one"],
                    &["b"],
                ),
                Node::new("conv2", "Conv", &["b", "w2", "zero"], &["c"]),
                Node::new(
                    "bn2",
                    "BatchNormalization",
                    &["c", "one", "zero", "zero", "one"],
                    &["d"],
                ),
            ],
            &[("one", 1.0), ("zero", 0.0)],
        )
    }

    #[test]
    fn each_layer_of_a_fresh_network_has_its_own() {
        let mut model = fresh();
        let apart = take_apart(&mut model);
        let mut all: Vec<&String> =
            ["conv1", "bn1", "conv2", "bn2"].iter().flat_map(|node| read(&model, node)).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!((count, all.len()), (12, 12), "{all:?}");
        assert_eq!((apart.made.len(), apart.tied.len()), (8, 0));
        assert_eq!(read(&model, "conv1"), ["w1", "zero"]);
        for name in read(&model, "bn2") {
            let expected = f32::from(u8::from(name.starts_with("one")));
            assert_eq!(model.graph.initializers[name].to_f32().unwrap(), [expected; 4]);
        }
        let again = model.clone();
        assert_eq!(take_apart(&mut model), Apart::default());
        assert_eq!(model, again);
    }

    #[test]
    fn a_module_that_is_used_twice_stays_one() {
        let mut model = fresh();
        model.graph.nodes[2].inputs[1] = "w1".to_owned();
        let apart = take_apart(&mut model);
        assert_eq!(apart.tied, [("w1".to_owned(), 2)]);
        let (first, second) = (read(&model, "bn1").to_vec(), read(&model, "bn2").to_vec());
        assert_eq!(first, second);
        assert_eq!(first[0], "one");
        // What is a parameter is no statistic.
        assert!(!["one", "zero"].contains(&first[2].as_str()) && first[3] != "one", "{first:?}");
    }

    #[test]
    fn values_of_a_trained_network_that_are_shared_stay_so() {
        let mut model = fresh();
        let data = TensorData::f32(&[CHANNELS], &[1.0, 2.0, 3.0, 4.0]);
        for name in ["own", "mean", "var"] {
            model.graph.initializers.insert(name.to_owned(), data.clone());
        }
        for node in [1, 3] {
            model.graph.nodes[node].inputs[1..]
                .clone_from_slice(&["own", "own", "mean", "var"].map(str::to_owned));
        }
        model.graph.nodes[2].inputs.truncate(2);
        let before = model.clone();
        assert_eq!(take_apart(&mut model), Apart::default());
        assert_eq!(model, before);
    }

    #[test]
    fn what_an_identity_names_is_its_own() {
        let nodes = vec![
            Node::new("", "Identity", &["n1.weight"], &["n2.weight"]),
            Node::new("", "Identity", &["w1"], &["l2.weight"]),
            Node::new("l1", "Conv", &["x", "w1"], &["a"]),
            Node::new("n1", "LayerNormalization", &["a", "n1.weight"], &["b"]),
            Node::new("l2", "Conv", &["b", "l2.weight"], &["c"]),
            Node::new("n2", "LayerNormalization", &["c", "n2.weight"], &["d"]),
        ];
        let mut model = model(nodes, &[("n1.weight", 1.0)]);
        let apart = take_apart(&mut model);
        assert_eq!(
            apart,
            Apart { made: vec!["n2.weight".to_owned(), "l2.weight".to_owned()], tied: Vec::new() }
        );
        assert_eq!(model.graph.nodes.len(), 4);
        assert_eq!(model.graph.initializers["l2.weight"], model.graph.initializers["w1"]);
    }

    #[test]
    fn both_halves_of_a_pair_keep_one_scale() {
        let nodes = vec![
            Node::new("", "Identity", &["s"], &["s2"]),
            Node::new("q", "QuantizeLinear", &["x", "s"], &["a"]),
            Node::new("d", "DequantizeLinear", &["a", "s2"], &["b"]),
        ];
        let mut model = model(nodes, &[("s", 0.5)]);
        let before = model.clone();
        assert_eq!(take_apart(&mut model), Apart::default());
        assert_eq!(model, before);
    }
}
