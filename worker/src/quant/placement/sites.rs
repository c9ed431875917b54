//! What a policy gives: the values that are read quantized, and by whom.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{Selection, View};
use crate::graph::Node;

/// An input of a node: its index, the input's.
pub type Site = (usize, usize);

/// Values that are read quantized. Each has one Q/DQ pair, which all its readers share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sites {
    /// Computed values and the inputs that read them quantized.
    pub tensors: IndexMap<String, Vec<Site>>,
    /// Weights: the input that reads one, and the axis of its channels that have a scale each.
    pub weights: Vec<(Site, i64)>,
    /// Nodes that are quantized.
    pub quantized: Vec<usize>,
    /// Nodes that could be but are not, and why.
    pub refused: Vec<(usize, String)>,
    /// For each node that a rule decided about that rule's name.
    pub rules: BTreeMap<usize, &'static str>,
    /// Values that have one scale together; no value is in two of them.
    pub groups: Vec<BTreeSet<String>>,
    /// Values that have scale and zero point of another one, of which they are a part, each with that one.
    pub kept: BTreeMap<String, String>,
}

impl Sites {
    /// Lets input `site` read `tensor` quantized.
    pub fn read(&mut self, tensor: &str, site: Site) {
        let sites = self.tensors.entry(tensor.to_owned()).or_default();
        if !sites.contains(&site) {
            sites.push(site);
        }
    }

    /// Whether some input reads `tensor` quantized.
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// Gives two values, and all that share a scale with one of them, one scale.
    pub fn share(&mut self, first: &str, second: &str) {
        if first == second {
            return;
        }
        let mut joined = BTreeSet::from([first.to_owned(), second.to_owned()]);
        self.groups.retain(|group| {
            let apart = !group.contains(first) && !group.contains(second);
            if !apart {
                joined.extend(group.iter().cloned());
            }
            apart
        });
        self.groups.push(joined);
    }

    /// The values that have one scale with `tensor`, itself among them, where there are others.
    pub fn group(&self, tensor: &str) -> Option<&BTreeSet<String>> {
        self.groups.iter().find(|group| group.contains(tensor))
    }

    /// The value whose range `tensor` has, by the parts that keep that of the whole; `origin` names the value whose elements one holds all of.
    pub fn range_of<'v>(
        &'v self,
        mut tensor: &'v str,
        origin: impl Fn(&'v str) -> &'v str,
    ) -> &'v str {
        loop {
            tensor = origin(tensor);
            match self.kept.get(tensor) {
                Some(whole) => tensor = whole,
                None => return tensor,
            }
        }
    }

    /// Brings all lists into the order of the graph, whatever the order of the rules was.
    pub(super) fn sort(&mut self) {
        self.tensors.values_mut().for_each(|sites| sites.sort_unstable());
        self.weights.sort_unstable();
        self.quantized.sort_unstable();
        self.refused.sort_by_key(|(index, _)| *index);
    }
}

/// The axis of the output channels in the constant weight of a Conv, ConvTranspose, Gemm or MatMul.
///
/// # Errors
/// Why the node is no layer with a weight that can be quantized.
pub(super) fn weight_axis(view: &View, index: usize) -> Result<i64, String> {
    let node = &view.graph.nodes[index];
    let weight = node.input(1).and_then(|name| view.constant(name));
    let (Some(_), Some(weight)) = (view.activation(index, 0), weight) else {
        return Err("its weight is not a constant of the model, or its input is one".to_owned());
    };
    let rank = weight.shape.len() as i64;
    match node.op_type.as_str() {
        "Gemm" if node.int("transA", 0).unwrap_or(0) != 0 => {
            Err("it reads its input transposed".to_owned())
        }
        "MatMul" if rank != 2 => Err(format!(
            "its weight has {rank} dimension(s): only of a matrix all output channels are along one axis"
        )),
        _ => output_axis(node, rank).ok_or_else(|| "it has no weight".to_owned()),
    }
}

/// The axis of the output channels in a weight of that rank; `None` for other operators than [`crate::ops::WEIGHTED`].
pub fn output_axis(node: &Node, rank: i64) -> Option<i64> {
    match node.op_type.as_str() {
        "Conv" => Some(0),
        "ConvTranspose" => Some(1),
        "Gemm" => Some(i64::from(node.int("transB", 0).unwrap_or(0) == 0)),
        "MatMul" => Some(rank - 1),
        _ => None,
    }
}

/// Why a node is not quantized.
pub(super) fn reason(sites: &Sites, selection: &Selection, index: usize) -> String {
    if let Some(reason) = selection.why_not(index) {
        return reason.to_owned();
    }
    let refused = sites.refused.iter().find(|(node, _)| *node == index);
    refused.map_or_else(
        || "the target's rules have no pair for this operator".to_owned(),
        |(_, reason)| reason.clone(),
    )
}
