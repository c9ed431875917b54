//! The order of nodes: the standard wants each behind those it depends on, but some tools append what they add, such as
//! onnxruntime's conversion to float16 the Cast of an input, and runtimes sort nodes themselves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::within::within;
use crate::graph::Graph;

/// Brings nodes into an order of computation, where they are in none; of all such orders the one that is nearest to the file's. What
/// depends on itself stays as it is: [`super::check`] names it.
pub fn sort(graph: &mut Graph) {
    let Some(order) = sorted(graph) else { return };
    let mut nodes: Vec<_> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
}

/// Indices of nodes in an order of computation; `None`: they are in one, or there is none.
fn sorted(graph: &Graph) -> Option<Vec<usize>> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            makers.entry(output).or_insert(index);
        }
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    let mut missing = vec![0_usize; graph.nodes.len()];
    let mut misplaced = false;
    for (index, node) in graph.nodes.iter().enumerate() {
        let inner = within(node);
        let captured = inner.iter().flat_map(|node| &node.inputs);
        for input in node.inputs.iter().chain(captured) {
            let Some(&maker) = makers.get(input.as_str()) else { continue };
            readers[maker].push(index);
            missing[index] += 1;
            misplaced |= maker >= index;
        }
    }
    if !misplaced {
        return None;
    }
    let ready = (0..missing.len()).filter(|&index| missing[index] == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &reader in &readers[index] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    (order.len() == graph.nodes.len()).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::super::within::tests::branch;
    use super::*;
    use crate::graph::Node;

    fn names(nodes: Vec<Node>) -> Vec<String> {
        let mut graph = Graph { nodes, ..Graph::default() };
        sort(&mut graph);
        graph.nodes.into_iter().map(|node| node.name).collect()
    }

    fn relu(name: &str, from: &str, to: &str) -> Node {
        Node::new(name, "Relu", &[from], &[to])
    }

    #[test]
    fn a_node_that_was_appended_comes_before_its_readers_and_all_others_stay() {
        let nodes = vec![relu("b", "x1", "y"), relu("c", "x", "z"), relu("cast", "x", "x1")];
        assert_eq!(names(nodes), ["c", "cast", "b"]);
        let nodes = vec![relu("c", "x", "z"), relu("a", "x", "x1"), relu("b", "x1", "y")];
        assert_eq!(names(nodes), ["c", "a", "b"]);
        // An If reads what its branches read.
        let nodes = vec![branch("if", "Relu", "x1", "y", false), relu("a", "x", "x1")];
        assert_eq!(names(nodes), ["a", "if"]);
        // No order: as it was.
        let nodes = vec![relu("a", "y", "z"), relu("b", "z", "y"), relu("c", "w", "v")];
        assert_eq!(names(nodes), ["a", "b", "c"]);
    }
}
