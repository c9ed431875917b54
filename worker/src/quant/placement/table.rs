//! The table of policies.

use std::collections::HashSet;

use qpipe::stages::insert_qdq::Target;

use super::{Selection, Sites, View, onnxruntime, tensorrt};
use crate::graph::Graph;
use crate::quant::scheme::Scheme;
use crate::{Error, Result};

/// The rules of a runtime.
pub struct Policy {
    /// The runtime.
    pub target: Target,
    /// Its name in files.
    pub name: &'static str,
    /// Chooses the sites among the selected nodes.
    pub place: fn(&View, &Selection) -> Sites,
    /// Type and zero point of a computed value.
    pub scheme: fn(&View, &str) -> Scheme,
    /// Whose range a value has: its own, or that of the value whose elements it holds.
    pub range_of: for<'a> fn(&View<'a>, &'a str) -> &'a str,
}

/// All policies.
pub const POLICIES: &[Policy] = &[tensorrt::POLICY, onnxruntime::POLICY];

/// The policy of `target`.
pub fn policy(target: Target) -> Result<&'static Policy> {
    let found = POLICIES.iter().find(|policy| policy.target == target);
    found.ok_or_else(|| Error::bug(format!("no placement for {target:?}")))
}

/// Values whose range some policy may need, in the order of the graph.
pub fn watched(graph: &Graph) -> Vec<String> {
    let view = View::of(graph);
    let mut needed = HashSet::new();
    for policy in POLICIES {
        let sites = (policy.place)(&view, &Selection::all(graph));
        for tensor in sites.tensors.keys() {
            // The view lives as long as the graph; the sites do not.
            let name = graph.nodes.iter().flat_map(|node| &node.inputs).find(|n| *n == tensor);
            needed.extend(name.map(|name| (policy.range_of)(&view, name)));
        }
    }
    let inputs = graph.inputs.iter().map(|input| &input.name);
    let values = inputs.chain(graph.nodes.iter().flat_map(|node| &node.outputs));
    values.filter(|name| needed.contains(name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_one_policy() {
        for target in [Target::Tensorrt, Target::Onnxruntime] {
            assert_eq!(POLICIES.iter().filter(|policy| policy.target == target).count(), 1);
        }
    }
}
