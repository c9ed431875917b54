//! A named rule, and how a list of them is applied to a graph.

use qpipe::stages::tensorrt_version::TensorrtVersion;

use super::{Policy, Selection, Sites, View};
use crate::graph::Node;

/// What a rule is shown.
pub struct Scene<'s, 'a> {
    /// The float graph.
    pub view: &'s View<'a>,
    /// Nodes that may be quantized.
    pub selection: &'s Selection,
    /// The TensorRT that builds the engine; other runtimes do not look at it.
    pub version: TensorrtVersion,
}

impl<'a> Scene<'_, 'a> {
    /// Node `index`.
    pub fn node(&self, index: usize) -> &'a Node {
        &self.view.graph.nodes[index]
    }
}

/// What a rule says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is quantized; the rule has added what it reads to the sites.
    Quantized,
    /// It stays float, and why.
    Float(String),
    /// Later rules decide.
    Pass,
}

/// In which order a rule is shown the nodes of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the graph.
    Forward,
    /// From its end: whether a node is quantized depends on those that read it.
    Backward,
}

/// A rule of placement.
pub struct Rule {
    /// Its name: `rule` of a layer in `plan.json`.
    pub name: &'static str,
    /// Operators that it decides about.
    pub operators: &'static [&'static str],
    /// What it does.
    pub about: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Where that is from: an address, or a measurement of ours.
    pub source: &'static str,
    pub(super) order: Order,
    pub(super) apply: fn(&Scene, usize, &mut Sites) -> Verdict,
}

/// Applies a policy's rules one after the other, each to all nodes that none before it decided about: a rule sees what the
/// rules before it quantized anywhere in the graph.
pub(super) fn place(policy: &Policy, scene: &Scene) -> Sites {
    let mut sites = Sites::default();
    let count = scene.view.graph.nodes.len();
    for rule in policy.rules {
        for step in 0..count {
            let index = if rule.order == Order::Forward { step } else { count - 1 - step };
            let node = scene.node(index);
            let fits = node.domain.is_empty()
                && rule.operators.contains(&node.op_type.as_str())
                && scene.selection.has(index)
                // Extents, and what is computed from them.
                && !node.outputs.iter().any(|output| scene.view.is_whole(output))
                && !sites.rules.contains_key(&index);
            if !fits {
                continue;
            }
            match (rule.apply)(scene, index, &mut sites) {
                Verdict::Quantized => sites.quantized.push(index),
                Verdict::Float(reason) => sites.refused.push((index, reason)),
                Verdict::Pass => continue,
            }
            sites.rules.insert(index, rule.name);
        }
    }
    sites.sort();
    sites
}
