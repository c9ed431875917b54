//! What QuantizeLinear and DequantizeLinear share: ranges of types, and parameters of a tensor, an axis or blocks.

use tch::{Kind, Tensor};

use super::kernel::{Prepare, axis_from_front};
use crate::graph::{DType, Node};
use crate::{Error, Result};

/// Least and greatest value of a quantized type of integers.
pub fn range(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::I8 => Some((-128, 127)),
        DType::U8 => Some((0, 255)),
        DType::I16 => Some((-32768, 32767)),
        DType::U16 => Some((0, 65535)),
        DType::I7 => Some((-64, 63)),
        DType::I4 => Some((-8, 7)),
        DType::U4 => Some((0, 15)),
        DType::I2 => Some((-2, 1)),
        DType::U2 => Some((0, 3)),
        _ => None,
    }
}

/// The type that a QuantizeLinear gives, from its zero point or attribute.
pub fn output_dtype(node: &Node, zero_point: Option<DType>) -> Result<DType> {
    let stated = match node.int("output_dtype", 0)? {
        0 => None,
        number => Some(dtype_of_number("output_dtype", number)?),
    };
    match (zero_point, stated) {
        (Some(dtype), Some(stated)) if dtype != stated && node.op_type == "QuantizeLinear" => {
            Err(Error::user(format!(
                "`output_dtype` is {}, but the zero point is of {}",
                stated.name(),
                dtype.name()
            )))
        }
        (Some(dtype), _) | (None, Some(dtype)) => Ok(dtype),
        (None, None) => Ok(DType::U8),
    }
}

/// The type that an attribute names.
pub fn dtype_of_number(attribute: &str, number: i64) -> Result<DType> {
    i32::try_from(number)
        .ok()
        .and_then(DType::from_onnx)
        .ok_or_else(|| Error::user(format!("`{attribute}` = {number} is not a type of numbers")))
}

/// Which elements share a scale and a zero point.
#[derive(Clone, Copy, Debug)]
pub struct Grouping {
    axis: i64,
    /// 0: all along the axis.
    block_size: i64,
}

impl Grouping {
    /// The attributes of a node.
    pub fn of(prepare: &Prepare) -> Result<Self> {
        let block_size = prepare.node.int("block_size", 0)?;
        if block_size < 0 {
            return Err(Error::user(format!("`block_size` = {block_size}")));
        }
        Ok(Self { axis: prepare.node.int("axis", 1)?, block_size })
    }

    /// Of an axis, in blocks where `block_size` is not 0.
    pub fn new(axis: i64, block_size: i64) -> Self {
        Self { axis, block_size }
    }

    /// Scale or zero point in a shape that broadcasts to that of `input`: one for all, one for each element
    /// of the axis, or `[…, blocks, …]`, one for each block of the axis.
    pub fn spread(&self, parameter: &Tensor, input: &Tensor) -> Result<Tensor> {
        if parameter.numel() == 1 {
            return Ok(parameter.f_reshape([0_i64; 0])?);
        }
        let (size, found) = (input.size(), parameter.size());
        let axis = axis_from_front(self.axis, size.len())?;
        let extent = size.get(axis as usize).copied().unwrap_or(1);
        if self.block_size > 0 {
            let mut expected = size.clone();
            if let Some(count) = expected.get_mut(axis as usize) {
                *count = extent / self.block_size + i64::from(extent % self.block_size != 0);
            }
            if found != expected {
                return Err(Error::user(format!(
                    "scale or zero point of shape {found:?}, expected {expected:?} for blocks of {}",
                    self.block_size
                )));
            }
            let length = self.block_size.min(extent.max(1));
            let each = parameter.f_repeat_interleave_self_int(length, axis, None)?;
            return Ok(each.f_narrow(axis, 0, extent)?);
        }
        if found != [extent] {
            return Err(Error::user(format!(
                "scale or zero point of shape {found:?} for {extent} channels"
            )));
        }
        let mut shape = vec![1; size.len()];
        shape[axis as usize] = -1;
        Ok(parameter.f_reshape(shape)?)
    }
}

/// Refuses a zero point of floats other than 0, which the standard does not allow.
pub fn require_zero(zero_point: Option<&Tensor>) -> Result<()> {
    let Some(zero_point) = zero_point else { return Ok(()) };
    let any = zero_point.f_to_kind(Kind::Float)?.f_ne(0)?.f_any()?;
    if any.f_int64_value(&[])? == 0 {
        return Ok(());
    }
    Err(Error::user("a zero point of floats that is not 0"))
}
