//! Constant weights stored in their quantized type.

use crate::Result;
use crate::graph::{DType, Graph, Model, Node, TensorData};
use crate::quant::grid::Grid;

/// Types of weights that are stored.
pub(super) const STORED: &[DType] = &[DType::I8, DType::I7, DType::I4, DType::F8E4M3FN];

/// Stores all weights behind a QuantizeLinear in the type that it makes of them; the DequantizeLinear stays.
///
/// # Errors
/// Constants that do not fit the weight.
pub fn store_weights(model: &mut Model) -> Result<()> {
    store(&mut model.graph, STORED)
}

/// Takes the QuantizeLinear of each float constant that makes one of those types away and stores what it gives, int4 two to a byte. The range
/// of an integer is of no concern any more: what was of the standard's types in part is of them whole.
///
/// # Errors
/// Constants that do not fit the weight.
pub(super) fn store(graph: &mut Graph, dtypes: &[DType]) -> Result<()> {
    let mut done = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.op_type != "QuantizeLinear" || graph.is_output(&node.outputs[0]) {
            continue;
        }
        if let Some(data) =
            quantized(graph, node, dtypes).map_err(|error| error.at(node.place()))?
        {
            done.push((index, node.outputs[0].clone(), data));
        }
    }
    for (index, name, data) in done.into_iter().rev() {
        graph.nodes.remove(index);
        graph.initializers.insert(name, data);
    }
    for data in graph.initializers.values_mut().filter(|data| dtypes.contains(&data.dtype)) {
        data.dtype = data.dtype.stored();
    }
    Ok(())
}

/// What a QuantizeLinear makes of a float constant; `None` where it reads none, or makes another type.
fn quantized(graph: &Graph, node: &Node, dtypes: &[DType]) -> Result<Option<TensorData>> {
    let find = |index| node.input(index).and_then(|name| graph.initializers.get(name));
    let (Some(weight), Some(scale), Some(zero)) = (find(0), find(1), find(2)) else {
        return Ok(None);
    };
    if weight.dtype != DType::F32 || scale.dtype != DType::F32 || !dtypes.contains(&zero.dtype) {
        return Ok(None);
    }
    let (axis, block_size) = (node.int("axis", 1)?, node.int("block_size", 0)?);
    let grid = Grid::of_constants(&weight.shape, scale, zero, axis, block_size)?;
    grid.quantize(&weight.to_f32()?, &weight.shape).map(Some)
}
