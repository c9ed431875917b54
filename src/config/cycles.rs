//! Stages that need themselves.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::mistakes::Mistake;
use super::pipeline::Origin;
use super::resolve::Connection;
use super::tree::Place;

/// Reports one shortest cycle of each group of stages that need each other.
pub(super) fn check(cells: &[(&str, &[Connection])], mistakes: &mut Vec<Mistake>) {
    let mut graph: DiGraph<&str, Place> = DiGraph::new();
    let nodes: HashMap<&str, NodeIndex> =
        cells.iter().map(|(id, _)| (*id, graph.add_node(*id))).collect();
    for (id, connections) in cells {
        for connection in *connections {
            if let Origin::Stage { id: producer, .. } = &connection.input.origin {
                graph.add_edge(nodes[id], nodes[producer.as_str()], connection.place);
            }
        }
    }
    let mut groups = tarjan_scc(&graph);
    // Nearly all groups are one stage that does not need itself.
    groups.retain(|group| match group.as_slice() {
        [one] => graph.find_edge(*one, *one).is_some(),
        _ => true,
    });
    groups.sort_by_key(|group| group.iter().min().copied());
    let mut told = HashSet::new();
    for group in groups {
        let Some(start) = group.into_iter().min() else { continue };
        let Some(cycle) = shortest(&graph, start) else { continue };
        let ids = cycle.iter().map(|(user, _, _)| graph[*user]);
        let chain: Vec<String> = ids.chain([graph[start]]).map(|id| format!("`{id}`")).collect();
        let message = format!("stages need each other: {}", chain.join(" → "));
        let labels = cycle.iter().map(|(user, producer, place)| {
            (*place, format!("`{}` needs `{}`", graph[*user], graph[*producer]))
        });
        let mistake = Mistake {
            code: "cycle",
            message,
            labels: labels.collect(),
            help: Some(
                "a stage can only use what is made before it: break one of these".to_owned(),
            ),
            unquoted: None,
        };
        // Cells of one stage make the same cycle at the same place.
        if told.insert(mistake.place()) {
            mistakes.push(mistake);
        }
    }
}

/// A user, what it needs, and where it says so.
type Edge = (NodeIndex, NodeIndex, Place);

/// The shortest way from a node back to itself.
fn shortest(graph: &DiGraph<&str, Place>, start: NodeIndex) -> Option<Vec<Edge>> {
    let mut came: BTreeMap<NodeIndex, Edge> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for edge in graph.edges(node) {
            let next = edge.target();
            if came.contains_key(&next) {
                continue;
            }
            came.insert(next, (node, next, *edge.weight()));
            if next == start {
                let mut way = vec![came[&start]];
                while way[way.len() - 1].0 != start {
                    way.push(came[&way[way.len() - 1].0]);
                }
                way.reverse();
                return Some(way);
            }
            queue.push_back(next);
        }
    }
    None
}
