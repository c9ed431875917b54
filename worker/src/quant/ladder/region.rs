//! Residual blocks of a graph: what stands between a value and the addition that it comes back to.
//!
//! A block has one entry and one exit: all that is computed inside depends on the entry and on constants alone, and nothing inside but the exit
//! is read outside. Found backwards from each Add of two computed values, up to the nearest value that all ways to it pass.

use std::collections::{BTreeSet, HashSet};

use super::layer::Layer;
use crate::graph::{Graph, Node};

/// A residual block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Its nodes, in order; those that read constants only belong to no block.
    pub nodes: Vec<usize>,
    /// The value that it is given.
    pub entry: String,
    /// The node that makes what it gives, the last one.
    pub exit: usize,
}

/// Layers of a block at most: a skip connection over half a network is no unit to learn at once.
const MOST_LAYERS: usize = 16;

/// Activations that belong to the addition before them.
pub(super) const ACTIVATIONS: [&str; 3] = ["Relu", "Clip", "LeakyRelu"];

/// Which nodes read constants only, such as the pair of a weight.
pub(super) fn constants(graph: &Graph) -> Vec<bool> {
    let mut known: HashSet<&str> = HashSet::new();
    let mut constant = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let fixed = |name: &String| {
            name.is_empty() || graph.is_initializer(name) || known.contains(name.as_str())
        };
        let is_constant = node.inputs.iter().all(fixed);
        if is_constant {
            known.extend(node.outputs.iter().map(String::as_str));
        }
        constant.push(is_constant);
    }
    constant
}

/// The residual blocks that hold some of these layers, in the order of the graph. No node is in two; where blocks are nested, the outer one counts.
pub(super) fn regions(graph: &Graph, layers: &[Layer]) -> Vec<Region> {
    let finder = Finder::new(graph);
    let held = |region: &Region| {
        layers.iter().filter(|layer| region.nodes.binary_search(&layer.node).is_ok()).count()
    };
    let adds = (0..graph.nodes.len()).filter(|&index| graph.nodes[index].op_type == "Add");
    let mut found: Vec<(usize, Region)> = adds
        .filter_map(|add| finder.region(add))
        .map(|region| (held(&region), region))
        .filter(|(held, _)| (1..=MOST_LAYERS).contains(held))
        .collect();
    found.sort_by_key(|(held, region)| (std::cmp::Reverse(*held), region.exit));
    let mut taken = HashSet::new();
    let mut chosen: Vec<Region> = Vec::new();
    for (_, region) in found {
        if region.nodes.iter().all(|node| !taken.contains(node)) {
            taken.extend(region.nodes.iter().copied());
            chosen.push(region);
        }
    }
    chosen.sort_by_key(|region| region.exit);
    chosen
}

/// Brings the nodes of each block next to each other, so that a block can run as one step of the walk; constants are computed first then. Whether
/// anything was moved, so that indices are others.
pub(super) fn gather(graph: &mut Graph, regions: &[Region]) -> bool {
    let constant = constants(graph);
    let scattered = |region: &Region| {
        let inside = region.nodes[0]..=region.exit;
        inside.filter(|&index| !constant[index]).count() > region.nodes.len()
    };
    if !regions.iter().any(scattered) {
        return false;
    }
    let mut order: Vec<usize> = (0..constant.len()).filter(|&index| constant[index]).collect();
    let mut placed: HashSet<usize> = order.iter().copied().collect();
    for index in 0..constant.len() {
        let region = regions.iter().find(|region| region.nodes.contains(&index));
        let own = [index];
        for &node in region.map_or(&own[..], |region| &region.nodes) {
            if placed.insert(node) {
                order.push(node);
            }
        }
    }
    let mut nodes: Vec<Option<Node>> =
        std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
    true
}

struct Finder<'a> {
    graph: &'a Graph,
    producers: std::collections::HashMap<&'a str, usize>,
    consumers: std::collections::HashMap<&'a str, Vec<usize>>,
    constant: Vec<bool>,
}

impl<'a> Finder<'a> {
    fn new(graph: &'a Graph) -> Self {
        Self {
            graph,
            producers: graph.producers(),
            consumers: graph.consumers(),
            constant: constants(graph),
        }
    }

    /// Values that a node reads and that are no constants, with the place of what makes each; `None`: an input of the graph.
    fn computed(&self, node: usize) -> impl Iterator<Item = (Option<usize>, &'a str)> + '_ {
        let names = self.graph.nodes[node].inputs.iter().map(String::as_str);
        names
            .filter(|name| !name.is_empty() && !self.graph.is_initializer(name))
            .map(|name| (self.producers.get(name).copied(), name))
            .filter(|(producer, _)| producer.is_none_or(|producer| !self.constant[producer]))
    }

    fn region(&self, add: usize) -> Option<Region> {
        let mut frontier: BTreeSet<(Option<usize>, &str)> = self.computed(add).collect();
        if frontier.len() < 2 {
            return None;
        }
        let mut nodes = vec![add];
        loop {
            let last = *frontier.last()?;
            let op = last.0.map(|producer| self.graph.nodes[producer].op_type.as_str());
            // Integers are no entry: what they are rounded from is.
            if frontier.len() == 1 && op != Some("QuantizeLinear") {
                break;
            }
            let producer = last.0?;
            frontier.retain(|(own, _)| *own != Some(producer));
            nodes.push(producer);
            frontier.extend(self.computed(producer));
        }
        let entry = frontier.first()?.1.to_owned();
        nodes.sort_unstable();
        let mut exit = add;
        if let Some(activation) = self.activation(add) {
            nodes.push(activation);
            exit = activation;
        }
        let inside: HashSet<usize> = nodes.iter().copied().collect();
        let closed = nodes.iter().filter(|&&node| node != exit).all(|&node| {
            self.graph.nodes[node].outputs.iter().filter(|name| !name.is_empty()).all(|name| {
                let readers = self.consumers.get(name.as_str()).into_iter().flatten();
                !self.graph.is_output(name)
                    && readers.copied().all(|reader| inside.contains(&reader))
            })
        });
        closed.then_some(Region { nodes, entry, exit })
    }

    /// The activation that alone reads what a node makes.
    fn activation(&self, node: usize) -> Option<usize> {
        let made = &self.graph.nodes[node].outputs[0];
        let [reader] = self.consumers.get(made.as_str())?[..] else { return None };
        let own = &self.graph.nodes[reader];
        let constant = |name: &String| self.graph.is_initializer(name) || name.is_empty();
        let alone = !self.graph.is_output(made) && own.inputs.iter().skip(1).all(constant);
        (ACTIVATIONS.contains(&own.op_type.as_str()) && alone).then_some(reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{TensorData, ValueInfo};
    use crate::ops::quantization::Grouping;

    fn value(name: &str) -> ValueInfo {
        ValueInfo { name: name.to_owned(), dtype: None, shape: None, opaque: None }
    }

    /// Nodes `name: op inputs`, each making the value of its name; layers are the Convs.
    fn graph(nodes: &[(&str, &str, &[&str])], output: &str) -> (Graph, Vec<Layer>) {
        let node =
            |(name, op, inputs): &(&str, &str, &[&str])| Node::new(name, op, inputs, &[name]);
        let nodes: Vec<Node> = nodes.iter().map(node).collect();
        let graph = Graph {
            inputs: vec![value("x")],
            outputs: vec![value(output)],
            initializers: [("w".to_owned(), TensorData::f32(&[], &[1.0]))].into_iter().collect(),
            nodes,
            ..Graph::default()
        };
        let layers = layers(&graph);
        (graph, layers)
    }

    fn layers(graph: &Graph) -> Vec<Layer> {
        let convs = (0..graph.nodes.len()).filter(|&node| graph.nodes[node].op_type == "Conv");
        convs
            .map(|node| Layer {
                node,
                weight: "w".to_owned(),
                scale: String::new(),
                grouping: Grouping::new(0, 0),
                range: (-8.0, 7.0),
                channels: 1,
                output_axis: 1,
            })
            .collect()
    }

    #[test]
    fn a_block_ends_with_the_activation_behind_its_addition_and_has_its_shortcut() {
        let (graph, layers) = graph(
            &[
                ("stem", "Conv", &["x", "w"]),
                ("q", "QuantizeLinear", &["stem", "w"]),
                ("dq", "DequantizeLinear", &["q", "w"]),
                ("a", "Conv", &["dq", "w"]),
                ("b", "Conv", &["a", "w"]),
                ("short", "Conv", &["dq", "w"]),
                ("sum", "Add", &["b", "short"]),
                ("relu", "Relu", &["sum"]),
                ("c", "Conv", &["relu", "w"]),
                ("sum2", "Add", &["relu", "c"]),
            ],
            "sum2",
        );
        let found = regions(&graph, &layers);
        assert_eq!(
            found,
            [
                Region { nodes: vec![3, 4, 5, 6, 7], entry: "dq".to_owned(), exit: 7 },
                Region { nodes: vec![8, 9], entry: "relu".to_owned(), exit: 9 },
            ]
        );
    }

    #[test]
    fn what_is_read_inside_is_no_block_and_a_bias_is_no_residual() {
        let read = [
            ("a", "Conv", &["x", "w"][..]),
            ("b", "Conv", &["a", "w"]),
            ("sum", "Add", &["x", "b"]),
            ("other", "Mul", &["sum", "a"]),
        ];
        let (graph_, layers_) = graph(&read, "other");
        assert_eq!(regions(&graph_, &layers_), []);
        let bias = [("a", "Conv", &["x", "w"][..]), ("sum", "Add", &["a", "w"])];
        let (graph_, layers_) = graph(&bias, "sum");
        assert_eq!(regions(&graph_, &layers_), []);
    }

    #[test]
    fn integers_are_no_entry() {
        let nodes = [
            ("q", "QuantizeLinear", &["x", "w"][..]),
            ("dq", "DequantizeLinear", &["q", "w"]),
            ("dq2", "DequantizeLinear", &["q", "w"]),
            ("a", "Conv", &["dq", "w"]),
            ("sum", "Add", &["a", "dq2"]),
        ];
        let (graph, layers) = graph(&nodes, "sum");
        let found = regions(&graph, &layers);
        assert_eq!(found, [Region { nodes: vec![0, 1, 2, 3, 4], entry: "x".to_owned(), exit: 4 }]);
    }

    #[test]
    fn of_nested_blocks_the_outer_one_counts_and_scattered_nodes_are_gathered() {
        let nodes = [
            ("a", "Conv", &["x", "w"][..]),
            ("side", "Conv", &["x", "w"]),
            ("sum", "Add", &["x", "a"]),
            ("b", "Conv", &["sum", "w"]),
            ("k", "Neg", &["w"]),
            ("side2", "Conv", &["side", "k"]),
            ("sum2", "Add", &["b", "x"]),
            ("both", "Concat", &["sum2", "side2"]),
        ];
        let (mut graph, own) = graph(&nodes, "both");
        let found = regions(&graph, &own);
        assert_eq!(found, [Region { nodes: vec![0, 2, 3, 6], entry: "x".to_owned(), exit: 6 }]);
        assert!(gather(&mut graph, &found));
        let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["k", "a", "sum", "b", "sum2", "side", "side2", "both"]);
        let found = regions(&graph, &layers(&graph));
        assert_eq!(found[0].nodes, [1, 2, 3, 4]);
        assert!(!gather(&mut graph, &found));
    }
}
