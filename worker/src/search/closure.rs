//! What is left in float with a set of layers: integers between two float layers gain nothing, and are converted twice.

use std::collections::HashSet;

use super::Set;
use crate::graph::Graph;
use crate::ops::WEIGHTED;

/// For each layer without a weight the layers with one next to it.
#[derive(Debug)]
pub struct Closure {
    neighbours: Vec<(usize, Vec<usize>)>,
}

impl Closure {
    /// Of `layers`, nodes of `graph` that may be quantized. Next to a layer are those that it reaches over nodes that are none.
    pub fn of(graph: &Graph, layers: &[usize]) -> Self {
        let weighted = |node: usize| WEIGHTED.contains(&graph.nodes[node].op_type.as_str());
        let place = |node: usize| layers.iter().position(|&layer| layer == node);
        let neighbours = layers.iter().enumerate().filter(|&(_, &node)| !weighted(node));
        let neighbours = neighbours.map(|(at, &node)| {
            let near = nearest(graph, node, &|other| place(other).is_some() || weighted(other));
            // A weighted one that is no layer is float in any case.
            (at, near.into_iter().filter(|&other| weighted(other)).filter_map(place).collect())
        });
        Self { neighbours: neighbours.collect() }
    }

    /// The set with the layers without a weight all of whose neighbours are in it.
    #[must_use]
    pub fn close(&self, set: &Set) -> Set {
        let mut closed = set.clone();
        let between = self.neighbours.iter().filter(|(_, near): &&(usize, Vec<usize>)| {
            !near.is_empty() && near.iter().all(|layer| set.contains(layer))
        });
        closed.extend(between.map(|(at, _)| *at));
        closed
    }
}

/// The nodes at which `stop` says so, reached from `from` in both directions over others.
fn nearest(graph: &Graph, from: usize, stop: &dyn Fn(usize) -> bool) -> Vec<usize> {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let mut seen: HashSet<usize> = HashSet::from([from]);
    let mut found = Vec::new();
    for forwards in [true, false] {
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            let node = &graph.nodes[node];
            let next: Vec<usize> = if forwards {
                let read = node.outputs.iter().filter_map(|name| consumers.get(name.as_str()));
                read.flatten().copied().collect()
            } else {
                let made = node.inputs.iter().filter_map(|name| producers.get(name.as_str()));
                made.copied().collect()
            };
            for node in next.into_iter().filter(|&node| seen.insert(node)) {
                if stop(node) {
                    found.push(node);
                } else {
                    open.push(node);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, ValueInfo};

    /// stem → relu → a → b → add ← stem; add → relu → pool → fc.
    fn graph() -> Graph {
        Graph {
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            nodes: vec![
                Node::new("stem", "Conv", &["x", "w"], &["s"]),
                Node::new("relu", "Relu", &["s"], &["r"]),
                Node::new("a", "Conv", &["r", "w"], &["va"]),
                Node::new("b", "Conv", &["va", "w"], &["vb"]),
                Node::new("add", "Add", &["vb", "r"], &["sum"]),
                Node::new("relu2", "Relu", &["sum"], &["r2"]),
                Node::new("pool", "GlobalAveragePool", &["r2"], &["p"]),
                Node::new("fc", "Gemm", &["p", "w"], &["y"]),
            ],
            ..Graph::default()
        }
    }

    #[test]
    fn layers_between_float_layers_stay_in_float() {
        // Places: stem 0, a 1, b 2, add 3, pool 4, fc 5.
        let closure = Closure::of(&graph(), &[0, 2, 3, 4, 6, 7]);
        let close = |set: &[usize]| {
            let closed = closure.close(&set.iter().copied().collect());
            closed.into_iter().collect::<Vec<usize>>()
        };
        assert_eq!(close(&[]), Vec::<usize>::new());
        assert_eq!(close(&[2]), [2], "the addition also reads the stem");
        assert_eq!(close(&[0, 2]), [0, 2, 3]);
        assert_eq!(close(&[5]), [4, 5], "the pooling is read by the last layer alone");
        assert_eq!(close(&[1]), [1]);
    }

    #[test]
    fn a_layer_that_is_float_in_any_case_is_in_no_way() {
        // Without the stem, which the user excludes.
        let closure = Closure::of(&graph(), &[2, 3, 4, 6, 7]);
        let closed = closure.close(&Set::from([1]));
        assert_eq!(closed, Set::from([1, 2]));
    }
}
