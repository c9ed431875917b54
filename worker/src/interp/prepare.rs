//! Nodes to kernels, and which nodes of a model have none.

use std::collections::HashMap;

use tch::Device;

use super::types::Types;
use crate::graph::{Model, Node, TensorData};
use crate::ops::{self, Kernel, OPSETS, Prepare};
use crate::{Error, Result};

/// What to do about nodes that cannot be executed.
const NOT_EXECUTED: &str = "`qpipe model inspect` lists all such nodes: export the model without them, or cut it there; docs/operators.md has what is executed";

/// A node that cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its index in the graph.
    pub node: usize,
    /// Why not.
    pub reason: String,
}

/// All nodes that cannot be executed, as far as that is known before anything runs; where
/// [`super::Program::compile`] ends at the first.
pub fn refusals(model: &Model) -> Vec<Refusal> {
    let nodes = model.graph.nodes.iter().enumerate();
    if let Err(error) = opset(model) {
        return nodes.map(|(node, _)| Refusal { node, reason: error.message.clone() }).collect();
    }
    let mut refused = Vec::new();
    let mut written = Vec::new();
    for (index, node) in nodes.clone().filter(|(_, node)| node.is_constant()) {
        match node.constant() {
            Ok(data) => written.push((node.outputs.first().map_or("", String::as_str), data)),
            Err(error) => refused.push(Refusal { node: index, reason: error.message }),
        }
    }
    let mut constants: HashMap<&str, &TensorData> =
        written.iter().map(|(name, data)| (*name, data)).collect();
    constants.extend(model.graph.initializers.iter().map(|(n, data)| (n.as_str(), data)));
    let types = Types::of(&model.graph, &constants);
    for (index, node) in nodes.filter(|(_, node)| !node.is_constant()) {
        if let Err(error) = kernel(node, model.opset(), Device::Cpu, &constants, &types) {
            refused.push(Refusal { node: index, reason: error.message });
        }
    }
    refused.sort_by_key(|refusal| refusal.node);
    refused
}

/// Refuses a model with a node that cannot be executed, before anything is read or run.
///
/// # Errors
/// The first such node with its operator and opset, and how many others there are.
pub fn check_executable(model: &Model) -> Result<()> {
    let refusals = refusals(model);
    let Some(first) = refusals.first() else { return Ok(()) };
    let more = match refusals.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more nodes)"),
    };
    let place = model.place(&model.graph.nodes[first.node]);
    Err(Error::user(format!("{}{more}", first.reason)).at(place).help(NOT_EXECUTED))
}

/// The opset of a model, if models of it are executed.
pub(super) fn opset(model: &Model) -> Result<i64> {
    let opset = model.opset();
    if OPSETS.contains(&opset) {
        return Ok(opset);
    }
    Err(Error::user(format!(
        "the model imports opset {opset}; {} to {} can be executed",
        OPSETS.start(),
        OPSETS.end()
    ))
    .help("convert it: onnx.version_converter.convert_version(model, 17)"))
}

/// What runs a node that is no `Constant`.
pub(super) fn kernel(
    node: &Node,
    opset: i64,
    device: Device,
    constants: &HashMap<&str, &TensorData>,
    types: &Types,
) -> Result<Kernel> {
    let op = if node.domain.is_empty() { ops::find(&node.op_type, opset) } else { None };
    let op = op.ok_or_else(|| match node.domain.as_str() {
        "" => ops::not_found(&node.op_type, opset),
        domain => Error::user(format!("operators of the domain `{domain}` cannot be executed"))
            .help(NOT_EXECUTED),
    })?;
    ops::check_moved(node, opset)?;
    let constants = node.inputs.iter().map(|name| constants.get(name.as_str()).copied());
    (op.prepare)(&Prepare {
        node,
        opset,
        device,
        constants: constants.collect(),
        types: types.inputs(node)?,
    })
}
