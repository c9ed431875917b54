//! Which constants are trained, and as what.

use std::collections::{HashMap, HashSet};

use tch::Tensor;

use crate::graph::{Graph, Node};

/// What a parameter is to the layer that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of a convolution or matrix product.
    Weight,
    /// Added to a layer's output.
    Bias,
    /// Scale of a normalization.
    NormScale,
    /// Shift of a normalization.
    NormShift,
    /// Of an activation below zero.
    Slope,
}

/// A constant that is trained.
#[derive(Debug)]
pub struct Parameter {
    /// Name of the initializer.
    pub name: String,
    /// The leaf that holds it; gradients are at it after a backward pass.
    pub tensor: Tensor,
    /// What it is to its layer.
    pub role: Role,
}

/// The role of each constant that a layer trains, by name; constants read by
/// anything else (a preprocessing step's mean, a scale) have none.
pub(super) fn roles(graph: &Graph, constants: &HashSet<&str>) -> HashMap<String, Role> {
    let producers = graph.producers();
    let mut roles = HashMap::new();
    for node in &graph.nodes {
        for (index, name) in node.inputs.iter().enumerate() {
            let Some(role) = role(graph, &producers, node, index) else { continue };
            let origin = origin(graph, &producers, name);
            if constants.contains(origin) {
                roles.entry(origin.to_owned()).or_insert(role);
            }
        }
    }
    roles
}

/// Where a value comes from, through steps that only change its form.
fn origin<'a>(graph: &'a Graph, producers: &HashMap<&str, usize>, mut name: &'a str) -> &'a str {
    while let Some(&index) = producers.get(name) {
        let node = &graph.nodes[index];
        let passes = ["QuantizeLinear", "DequantizeLinear", "Identity", "Transpose", "Reshape"];
        match node.input(0) {
            Some(input) if passes.contains(&node.op_type.as_str()) => name = input,
            _ => break,
        }
    }
    name
}

/// Operators that scale and shift what they normalized.
const NORMALIZATIONS: [&str; 5] = [
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "RMSNormalization",
];

fn role(
    graph: &Graph,
    producers: &HashMap<&str, usize>,
    node: &Node,
    index: usize,
) -> Option<Role> {
    match (node.op_type.as_str(), index) {
        ("Conv" | "ConvTranspose" | "Gemm", 1) | ("MatMul", 0 | 1) => Some(Role::Weight),
        ("Conv" | "ConvTranspose" | "Gemm", 2) => Some(Role::Bias),
        (op, 1) if NORMALIZATIONS.contains(&op) => Some(Role::NormScale),
        (op, 2) if NORMALIZATIONS.contains(&op) => Some(Role::NormShift),
        ("PRelu", 1) => Some(Role::Slope),
        // A bias that an exporter wrote as an addition: only behind a layer's own product.
        ("Add", 0 | 1) => {
            let other = origin(graph, producers, node.input(1 - index)?);
            let layer = &graph.nodes[*producers.get(other)?];
            ["Conv", "ConvTranspose", "Gemm", "MatMul"]
                .contains(&layer.op_type.as_str())
                .then_some(Role::Bias)
        }
        _ => None,
    }
}
