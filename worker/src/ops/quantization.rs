//! What QuantizeLinear and DequantizeLinear share: ranges of types, and parameters along an axis.

use tch::Tensor;

use super::kernel::{Prepare, axis_from_front};
use crate::graph::{DType, Node};
use crate::{Error, Result};

/// Least and greatest value of a quantized type.
pub fn range(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::I8 => Some((-128, 127)),
        DType::U8 => Some((0, 255)),
        DType::I16 => Some((-32768, 32767)),
        _ => None,
    }
}

/// The type that a QuantizeLinear gives, from its zero point or attribute.
pub fn output_dtype(node: &Node, zero_point: Option<DType>) -> Result<DType> {
    match (zero_point, node.int("output_dtype", 0)?) {
        (Some(dtype), _) => Ok(dtype),
        (None, 0) => Ok(DType::U8),
        (None, number) => DType::from_onnx(i32::try_from(number).unwrap_or(0))
            .ok_or_else(|| Error::user(format!("`output_dtype` = {number} is not supported"))),
    }
}

/// The axis of a node's scales; refuses what neither operator executes.
pub fn axis_of(prepare: &Prepare) -> Result<i64> {
    prepare.require_int("block_size", 0)?;
    prepare.require_int("precision", 0)?;
    prepare.node.int("axis", 1)
}

/// Scale or zero point of `[C]` in the shape that broadcasts along `axis`.
pub fn along(parameter: &Tensor, input: &Tensor, axis: i64) -> Result<Tensor> {
    if parameter.numel() == 1 {
        return Ok(parameter.f_reshape([0_i64; 0])?);
    }
    let axis = axis_from_front(axis, input.dim())? as usize;
    let channels = input.size()[axis];
    if parameter.dim() != 1 || parameter.size()[0] != channels {
        return Err(Error::user(format!(
            "scale or zero point of shape {:?} for {channels} channels",
            parameter.size()
        )));
    }
    let mut shape = vec![1; input.dim()];
    shape[axis] = -1;
    Ok(parameter.f_reshape(shape)?)
}
