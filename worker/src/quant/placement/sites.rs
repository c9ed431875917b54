//! What a policy gives: the values that are read quantized, and by whom.

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
    /// Weights: the input that reads one, and the axis of its output channels.
    pub weights: Vec<(Site, i64)>,
    /// Nodes that are quantized.
    pub quantized: Vec<usize>,
    /// Nodes that could be but are not, and why.
    pub refused: Vec<(usize, String)>,
}

impl Sites {
    /// Lets input `site` read `tensor` quantized.
    pub fn read(&mut self, tensor: &str, site: Site) {
        let sites = self.tensors.entry(tensor.to_owned()).or_default();
        if !sites.contains(&site) {
            sites.push(site);
        }
    }

    /// Quantizes a layer's input and its constant weight. Returns whether it is such a layer.
    pub fn weighted(&mut self, view: &View, index: usize) -> bool {
        let node = &view.graph.nodes[index];
        let Some(axis) = weight_axis(view, index) else {
            let reason = "its weight is not a constant of the model, or its input is one";
            self.refused.push((index, reason.to_owned()));
            return false;
        };
        let Some(input) = view.activation(index, 0) else { return false };
        debug_assert_eq!(node.input(0), Some(input));
        self.read(input, (index, 0));
        self.weights.push(((index, 1), axis));
        self.quantized.push(index);
        true
    }
}

/// The axis of the output channels in the weight of a Conv, ConvTranspose, Gemm or MatMul; `None` where
/// there is no constant weight for a computed input.
fn weight_axis(view: &View, index: usize) -> Option<i64> {
    let node = &view.graph.nodes[index];
    view.activation(index, 0)?;
    let weight = view.constant(node.input(1)?)?;
    let rank = weight.shape.len() as i64;
    match node.op_type.as_str() {
        "Gemm" if node.int("transA", 0).unwrap_or(0) != 0 => None,
        "MatMul" if rank != 2 => None,
        _ => output_axis(node, rank),
    }
}

/// The axis of the output channels in a weight of that rank; `None` for other operators than [`super::WEIGHTED`].
pub fn output_axis(node: &Node, rank: i64) -> Option<i64> {
    match node.op_type.as_str() {
        "Conv" => Some(0),
        "ConvTranspose" => Some(1),
        "Gemm" => Some(i64::from(node.int("transB", 0).unwrap_or(0) == 0)),
        "MatMul" => Some(rank - 1),
        _ => None,
    }
}

/// For nodes that no policy touches: why.
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
