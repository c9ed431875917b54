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
    /// Of no layer: a position embedding, a class token, a scale of a block's output.
    Free,
    /// Of an activation below zero.
    Slope,
    /// Of a Q/DQ pair: what an integer step stands for. Above zero.
    Scale,
}

/// A constant that is trained.
#[derive(Debug)]
pub struct Parameter {
    /// Name of the initializer.
    pub name: String,
    /// The leaf that holds it.
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
    free(graph, constants, &producers, &mut roles);
    roles
}

/// Adds the constants that belong to no layer. They are combined with what layers made: a preprocessing
/// step's mean is not. And they have names of their own: what an exporter computed beforehand, such as
/// the mask of an attention, has one that it made up. A single number is a factor that somebody chose.
fn free(
    graph: &Graph,
    constants: &HashSet<&str>,
    producers: &HashMap<&str, usize>,
    roles: &mut HashMap<String, Role>,
) {
    let mut learned: HashSet<&str> = roles.keys().map(|name| name.as_str()).collect();
    let mut found = Vec::new();
    for node in &graph.nodes {
        let inputs = || node.inputs.iter().map(String::as_str).filter(|name| !name.is_empty());
        if ["Add", "Sub", "Mul", "Div", "Concat", "PRelu"].contains(&node.op_type.as_str()) {
            for name in inputs() {
                let origin = wide_origin(graph, producers, name);
                let many = graph.initializers.get(origin).is_some_and(|data| data.len() > 1);
                let own = many && constants.contains(origin) && !learned.contains(origin);
                let own = own && !made_up(origin);
                let other = || inputs().any(|other| other != name && learned.contains(other));
                if own && other() {
                    found.push(origin.to_owned());
                }
            }
        }
        if inputs().any(|name| learned.contains(name)) {
            learned.extend(node.outputs.iter().map(String::as_str));
        }
    }
    roles.extend(found.into_iter().map(|name| (name, Role::Free)));
}

/// Whether PyTorch's exporters made a name up: `onnx::Add_12`, `val_12`, `lifted_tensor_0`, `_tensor_constant0`.
fn made_up(name: &str) -> bool {
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    name.starts_with("onnx::")
        || name.strip_prefix("val_").is_some_and(number)
        || name.contains("lifted_tensor")
        || name.contains("tensor_constant")
        || name.contains("/Constant")
}

/// As [`origin`], also through what picks, repeats or bends.
fn wide_origin<'a>(
    graph: &'a Graph,
    producers: &HashMap<&str, usize>,
    mut name: &'a str,
) -> &'a str {
    const PASSES: [&str; 14] = [
        "QuantizeLinear",
        "DequantizeLinear",
        "Identity",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Tile",
        "Gather",
        "Slice",
        "Cast",
        "Clip",
        "Exp",
    ];
    while let Some(&index) = producers.get(name) {
        let node = &graph.nodes[index];
        match node.input(0) {
            Some(input) if PASSES.contains(&node.op_type.as_str()) => name = input,
            _ => break,
        }
    }
    name
}

/// Where a value comes from, through steps that only change its form.
pub(super) fn origin<'a>(
    graph: &'a Graph,
    producers: &HashMap<&str, usize>,
    mut name: &'a str,
) -> &'a str {
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
        ("Conv" | "ConvTranspose" | "Gemm", 1) | ("MatMul", 1) => Some(Role::Weight),
        // Not what a constant is multiplied with: a table of positions before the layer that embeds them.
        ("MatMul", 0) => {
            let other = origin(graph, producers, node.input(1)?);
            (producers.contains_key(other) || graph.inputs.iter().any(|input| input.name == other))
                .then_some(Role::Weight)
        }
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
