//! The table of policies.

use std::collections::HashSet;

use qpipe::stages::insert_qdq::Target;
use qpipe::stages::tensorrt_version::TensorrtVersion;

use super::rule::{self, Rule, Scene};
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
    /// Its rules; of those that cover an operator the first that has something to say of a node decides.
    pub rules: &'static [&'static Rule],
    /// Type and zero point of a computed value.
    pub scheme: fn(&View, &str) -> Scheme,
    /// Whose range a value has: its own, or that of the value whose elements it holds.
    pub range_of: for<'a> fn(&View<'a>, &'a str) -> &'a str,
    /// Least and greatest value where the operator says so and not the calibration.
    pub bounds: fn(&View, &str) -> Option<(f32, f32)>,
}

impl Policy {
    /// Chooses the sites among the selected nodes, for the newest version of the runtime.
    pub fn place(&self, view: &View, selection: &Selection) -> Sites {
        self.place_for(view, selection, TensorrtVersion::NEWEST)
    }

    /// The same for another version of TensorRT; other runtimes' rules do not depend on it.
    pub fn place_for(&self, view: &View, selection: &Selection, version: TensorrtVersion) -> Sites {
        rule::place(self, &Scene { view, selection, version })
    }
}

/// All policies.
pub const POLICIES: &[Policy] = &[tensorrt::POLICY, tensorrt::RTX, onnxruntime::POLICY];

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
        let sites = policy.place(&view, &Selection::all(graph));
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
        for target in Target::ALL {
            assert_eq!(POLICIES.iter().filter(|policy| policy.target == target).count(), 1);
        }
    }
}
