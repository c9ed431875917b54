//! Element types of values, as far as they are known before anything runs.
//!
//! libtorch holds values of some types in wider ones ([`torch::carrier_of`]), from which the type cannot be told.

use std::collections::HashMap;

use crate::graph::{DType, Graph, Node, TensorData};
use crate::ops::{conversion, quantization};
use crate::{Error, Result, torch};

/// Operators whose first output has the type of their first input, whatever it is.
const MOVERS: [&str; 15] = [
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Other operators that read values of any type.
const READERS: [&str; 6] =
    ["Cast", "CastLike", "DequantizeLinear", "QuantizeLinear", "Shape", "Size"];

/// The types that are known, by value.
pub(super) struct Types<'a>(HashMap<&'a str, DType>);

impl<'a> Types<'a> {
    /// Types that the graph states, that its constants have, and that follow from them.
    pub fn of(graph: &'a Graph, constants: &HashMap<&'a str, &TensorData>) -> Self {
        let stated = graph.value_infos.iter().chain(&graph.inputs).chain(&graph.outputs);
        let mut types: HashMap<&str, DType> =
            stated.filter_map(|info| Some((info.name.as_str(), info.dtype?))).collect();
        types.extend(constants.iter().map(|(&name, data)| (name, data.dtype)));
        for node in graph.nodes.iter().filter(|node| node.domain.is_empty()) {
            let of = |index| node.input(index).and_then(|name| types.get(name).copied());
            let made = match node.op_type.as_str() {
                "QuantizeLinear" if node.input(2).is_none() || of(2).is_some() => {
                    quantization::output_dtype(node, of(2)).ok()
                }
                "Cast" => conversion::cast_target(node).ok(),
                "CastLike" => of(1),
                op if MOVERS.contains(&op) => of(0),
                _ => None,
            };
            if let (Some(dtype), Some(output)) = (made, node.outputs.first()) {
                types.entry(output).or_insert(dtype);
            }
        }
        Self(types)
    }

    /// Those of a node's inputs.
    ///
    /// # Errors
    /// An input that libtorch holds in a wider type, where the node computes with it.
    pub fn inputs(&self, node: &Node) -> Result<Vec<Option<DType>>> {
        let op = node.op_type.as_str();
        let takes_all = MOVERS.contains(&op) || READERS.contains(&op);
        let types = node.inputs.iter().map(|name| {
            let dtype = self.0.get(name.as_str()).copied();
            if let (Some(dtype), false) = (dtype, takes_all) {
                torch::kind_of(dtype).map_err(|error| {
                    Error::user(format!("its input `{name}`: {}", error.message))
                })?;
            }
            Ok(dtype)
        });
        types.collect()
    }
}
