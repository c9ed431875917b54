//! Element types of values, as far as they are known before anything runs.
//!
//! libtorch holds values of some types in wider ones ([`torch::carrier_of`]), from which the type cannot be told.

use std::collections::HashMap;

use crate::graph::{DType, Graph, Node, TensorData};
use crate::ops::{Kernel, conversion, quantization};
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

/// Operators that compute with uint16 and uint32 as the wider types do that hold them, and then wrap.
const WRAPPING: [&str; 9] = ["Add", "BitShift", "Div", "Max", "Min", "Mod", "Mul", "Sub", "Sum"];

/// Operators whose results do not depend on which type holds whole numbers.
const COMPARING: [&str; 5] = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"];

/// How many numbers a type has, of those that [`WRAPPING`] is about.
fn modulus(dtype: DType) -> Option<i64> {
    match dtype {
        DType::U16 => Some(1 << 16),
        DType::U32 => Some(1 << 32),
        _ => None,
    }
}

/// Whether an operator takes values of a type for input `index` that libtorch holds in a wider one.
fn takes(op: &str, index: usize, dtype: DType) -> bool {
    let computes = WRAPPING.contains(&op) || COMPARING.contains(&op) || (op == "Pow" && index == 1);
    MOVERS.contains(&op) || READERS.contains(&op) || (computes && modulus(dtype).is_some())
}

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
                op if MOVERS.contains(&op) || WRAPPING.contains(&op) => of(0),
                _ => None,
            };
            if let (Some(dtype), Some(output)) = (made, node.outputs.first()) {
                types.entry(output).or_insert(dtype);
            }
        }
        Self(types)
    }

    fn of_input(&self, node: &Node, index: usize) -> Option<DType> {
        self.0.get(node.inputs.get(index)?.as_str()).copied()
    }

    /// Those of a node's inputs.
    ///
    /// # Errors
    /// An input that libtorch holds in a wider type, where the node computes with it as the standard does not.
    pub fn inputs(&self, node: &Node) -> Result<Vec<Option<DType>>> {
        let types = node.inputs.iter().enumerate().map(|(index, name)| {
            let dtype = self.of_input(node, index);
            if let Some(dtype) = dtype.filter(|&dtype| !takes(&node.op_type, index, dtype)) {
                torch::kind_of(dtype).map_err(|error| {
                    Error::user(format!("its input `{name}`: {}", error.message))
                })?;
            }
            Ok(dtype)
        });
        types.collect()
    }

    /// A node's kernel, whose results wrap as those of its type do.
    pub fn wrapping(&self, node: &Node, kernel: Kernel) -> Kernel {
        let dtype = self.of_input(node, 0).filter(|_| WRAPPING.contains(&node.op_type.as_str()));
        let Some(modulus) = dtype.and_then(modulus) else { return kernel };
        Box::new(move |arguments| {
            let made = kernel(arguments)?;
            made.iter().map(|tensor| Ok(tensor.f_remainder(modulus)?)).collect()
        })
    }
}
