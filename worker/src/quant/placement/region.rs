//! Patterns that name parts of a graph by its edges.

use std::collections::{BTreeSet, VecDeque};

use super::View;
use super::pattern::{covered, unknown};
use crate::{Error, Result};

/// Nodes on a way from the first to the second node of `names`, which are separated by a colon.
///
/// # Errors
/// Nodes that are not there, with the nearest names; nodes without a way between them.
pub(super) fn between(view: &View, names: &str) -> Result<Vec<bool>> {
    let nodes = &view.graph.nodes;
    let labels: Vec<&str> = nodes.iter().map(|node| node.label()).collect();
    let find = |name: &str| labels.iter().position(|label| *label == name);
    // Names may have colons of their own.
    let splits: Vec<(&str, &str)> =
        names.match_indices(':').map(|(at, _)| (&names[..at], &names[at + 1..])).collect();
    let whole = splits.iter().find_map(|(from, to)| Some((find(from)?, find(to)?)));
    let Some((from, to)) = whole else {
        let Some((from, to)) = splits.first() else {
            return Err(Error::user(format!("\"between:{names}\" names one node"))
                .help("two are wanted, first and last of what is meant: \"between:A:B\""));
        };
        let strange = if find(from).is_none() { from } else { to };
        let error = unknown("node", "", strange, &labels);
        return Err(error.at(format!("\"between:{names}\"")));
    };
    let behind = reached(view, from, Direction::Forward);
    let before = reached(view, to, Direction::Backward);
    if !behind.contains(&to) {
        let (from_name, to_name) = (labels[from], labels[to]);
        let error = Error::user(format!("no way leads from \"{from_name}\" to \"{to_name}\""));
        return Err(if reached(view, to, Direction::Forward).contains(&from) {
            error.help(format!("one leads back: \"between:{to_name}:{from_name}\""))
        } else {
            error.help("name a node, and one that is computed from its output")
        });
    }
    Ok(flags(view, |node| behind.contains(&node) && before.contains(&node)))
}

/// Nodes that compute outputs of the graph, back to the nearest layers, these included; with `:N` behind the name, a glob, back to the
/// N-th layer on the way with fewest layers. What only asks for a value's shape computes nothing of it.
///
/// # Errors
/// A name that is no output, with the nearest; an output that no node computes.
pub(super) fn output(view: &View, pattern: &str) -> Result<Vec<bool>> {
    let graph = view.graph;
    let names: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
    let chosen = |glob: &str| -> Vec<&str> {
        let flags = covered(&names, glob).into_iter().zip(&names);
        flags.filter(|(covers, _)| *covers).map(|(_, name)| *name).collect()
    };
    // Names may have colons of their own.
    let mut depth = 1;
    let mut outputs = chosen(pattern);
    if outputs.is_empty()
        && let Some((glob, layers)) = pattern.rsplit_once(':')
        && let Some(layers) = layers.parse::<usize>().ok().filter(|layers| *layers > 0)
    {
        (depth, outputs) = (layers, chosen(glob));
    }
    if outputs.is_empty() {
        return Err(unknown("output", "output:", pattern, &names));
    }
    // Those that fewer layers stand behind come first.
    let start = outputs.iter().filter_map(|name| view.producer_index(name));
    let mut open: VecDeque<(usize, usize)> = start.map(|node| (node, 0)).collect();
    let mut found = BTreeSet::new();
    while let Some((node, layers)) = open.pop_front() {
        if layers == depth || !found.insert(node) {
            continue;
        }
        let is_layer = view.is_layer(node);
        let own = &graph.nodes[node];
        if matches!(own.op_type.as_str(), "Shape" | "Size") {
            continue;
        }
        for input in own.inputs.iter().filter_map(|input| view.producer_index(input)) {
            match is_layer {
                true => open.push_back((input, layers + 1)),
                false => open.push_front((input, layers)),
            }
        }
    }
    if found.is_empty() {
        return Err(Error::user(format!("\"output:{pattern}\": no node computes it")));
    }
    Ok(flags(view, |node| found.contains(&node)))
}

/// Layers that no other layer is behind of.
pub(super) fn first(view: &View) -> Vec<bool> {
    flags(view, |node| view.is_layer(node) && previous(view, node).is_empty())
}

/// Layers that no other layer depends on.
pub(super) fn last(view: &View) -> Vec<bool> {
    let layers = (0..view.graph.nodes.len()).filter(|&node| view.is_layer(node));
    let followed: BTreeSet<usize> = layers.flat_map(|node| previous(view, node)).collect();
    flags(view, |node| view.is_layer(node) && !followed.contains(&node))
}

/// The nearest layers that a node depends on.
fn previous(view: &View, node: usize) -> BTreeSet<usize> {
    let inputs = &view.graph.nodes[node].inputs;
    inputs.iter().flat_map(|input| view.layers_behind(input)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// All nodes that a way leads to from `start`, with or against the edges, itself among them.
fn reached(view: &View, start: usize, direction: Direction) -> BTreeSet<usize> {
    let (mut open, mut seen) = (vec![start], BTreeSet::new());
    while let Some(index) = open.pop() {
        if !seen.insert(index) {
            continue;
        }
        let node = &view.graph.nodes[index];
        match direction {
            Direction::Forward => {
                let readers = node.outputs.iter().flat_map(|output| view.readers(output));
                open.extend(readers.map(|(reader, _)| reader));
            }
            Direction::Backward => {
                open.extend(node.inputs.iter().filter_map(|input| view.producer_index(input)));
            }
        }
    }
    seen
}

fn flags(view: &View, has: impl Fn(usize) -> bool) -> Vec<bool> {
    (0..view.graph.nodes.len()).map(has).collect()
}
