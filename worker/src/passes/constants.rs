//! Constants that nodes compute: `Constant` nodes, and nodes that read nothing but constants.

use super::extent;
use crate::graph::{Model, Node, TensorData};
use crate::ops::{self, Arguments, Prepare, conversion};
use crate::{Error, Result, torch};

/// Largest result that is worth storing, elements; a larger one is cheaper computed (an Expand, a ConstantOfShape).
const LARGEST: usize = 1 << 20;

/// Larger results than this, elements, are not computed, unless they are smaller than the inputs: most would be thrown away.
const LARGEST_COMPUTED: u128 = 1 << 24;

/// Elements of all results together, so that many nodes take no more memory than a large model.
const MOST: usize = 1 << 26;

/// Operators that stay although they read only constants: quantized weights keep their pair, which training needs.
const KEPT: [&str; 3] = ["QuantizeLinear", "DequantizeLinear", "Dropout"];

/// Makes initializers of `Constant` nodes and of nodes that read nothing but constants.
///
/// What the interpreter cannot execute stays as it is.
pub fn fold(model: &mut Model) -> Result<usize> {
    let opset = model.opset();
    let graph = &mut model.graph;
    let (mut folded, mut elements) = (0, 0);
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes) {
        let [output] = &node.outputs[..] else {
            kept.push(node);
            continue;
        };
        let name = output.clone();
        let data = if elements < MOST { value(&node, opset, &graph.initializers) } else { None };
        match data {
            Some(data) if !graph.outputs.iter().any(|o| o.name == name) => {
                elements += data.len();
                graph.initializers.insert(name, data);
                folded += 1;
            }
            _ => kept.push(node),
        }
    }
    graph.nodes = kept;
    Ok(folded)
}

fn value(
    node: &Node,
    opset: i64,
    constants: &indexmap::IndexMap<String, TensorData>,
) -> Option<TensorData> {
    if !node.domain.is_empty() || KEPT.contains(&node.op_type.as_str()) {
        return None;
    }
    if node.is_constant() {
        return node.constant().ok();
    }
    if node.inputs.is_empty() {
        return None;
    }
    let inputs: Option<Vec<Option<&TensorData>>> = node
        .inputs
        .iter()
        .map(|name| if name.is_empty() { Some(None) } else { constants.get(name).map(Some) })
        .collect();
    let inputs = inputs?;
    // Of other types the result would be written in the wider one that holds their values.
    let is_wider = |dtype| torch::kind_of(dtype).is_err();
    if inputs.iter().flatten().any(|data| is_wider(data.dtype))
        || (node.op_type == "Cast" && conversion::cast_target(node).map_or(true, is_wider))
    {
        return None;
    }
    let given: usize = inputs.iter().flatten().map(|data| data.len()).sum();
    if extent::at_most(node, &inputs)? > LARGEST_COMPUTED.max(given as u128) {
        return None;
    }
    evaluate(node, opset, &inputs).ok().filter(|data| data.len() <= LARGEST)
}

fn evaluate(node: &Node, opset: i64, inputs: &[Option<&TensorData>]) -> Result<TensorData> {
    let op = ops::find(&node.op_type, opset);
    let op = op.ok_or_else(|| ops::not_found(&node.op_type, opset))?;
    ops::check_moved(node, opset)?;
    let device = tch::Device::Cpu;
    let constants = inputs.to_vec();
    let types = inputs.iter().map(|data| data.map(|data| data.dtype)).collect();
    let kernel = (op.prepare)(&Prepare { node, opset, device, constants, types })?;
    let tensors: Result<Vec<_>> = inputs
        .iter()
        .map(|input| input.map(|data| torch::to_tensor(data, device)).transpose())
        .collect();
    let tensors = tensors?;
    let tensors: Vec<_> = tensors.iter().map(Option::as_ref).collect();
    let made = kernel(&Arguments::of(&tensors))?;
    torch::tensor_data(made.first().ok_or_else(|| Error::bug("a kernel without output"))?)
}
