//! Sums of products of small integers, shared by the operators that compute with them.
//!
//! They are computed in double precision, which is exact: a product has at most 16 bits, a sum of 2^37 of them 53.

use tch::{Kind, Tensor};

use super::quantization::range;
use crate::{Error, Result, torch};

/// Which axis has a zero point or scale for each of its elements, where there is more than one.
#[derive(Clone, Copy, Debug)]
pub enum Along {
    /// The rows of a matrix.
    Rows,
    /// The columns of a matrix.
    Columns,
    /// The first, of a convolution's weight.
    First,
    /// The second, of a convolution's output.
    Second,
}

/// A zero point or scale in double precision, in a shape that broadcasts to that of `tensor`.
pub fn spread(parameter: &Tensor, tensor: &Tensor, along: Along) -> Result<Tensor> {
    let wide = parameter.f_to_kind(Kind::Double)?;
    let rank = tensor.dim();
    if wide.numel() == 1 {
        return Ok(wide.f_reshape([0_i64; 0])?);
    }
    let axis = match along {
        Along::Rows => rank.checked_sub(2),
        Along::Columns => rank.checked_sub(1),
        Along::First => Some(0),
        Along::Second => Some(1),
    };
    match axis {
        Some(axis) if wide.dim() == 1 && axis < rank => {
            let mut shape = vec![1; rank];
            shape[axis] = -1;
            Ok(wide.f_reshape(shape)?)
        }
        // Of a stack of matrices, one row or column of parameters for each.
        _ if wide.dim() == rank => Ok(wide),
        _ => Err(Error::user(format!(
            "scale or zero point of shape {:?} for a tensor of shape {:?}",
            parameter.size(),
            tensor.size()
        ))),
    }
}

/// `tensor` less its zero point, in double precision.
pub fn centred(tensor: &Tensor, zero_point: Option<&Tensor>, along: Along) -> Result<Tensor> {
    let wide = tensor.f_to_kind(Kind::Double)?;
    match zero_point {
        Some(zero) => Ok(wide.f_sub(&spread(zero, tensor, along)?)?),
        None => Ok(wide),
    }
}

/// round half to even(x) + zero point, saturated to the type of the zero point.
pub fn saturated(x: &Tensor, zero_point: &Tensor, along: Along) -> Result<Tensor> {
    let kind = zero_point.kind();
    let range = range(torch::dtype_of(kind)?);
    let (low, high) =
        range.ok_or_else(|| Error::user(format!("quantization to {kind:?} is not supported")))?;
    let moved = x.f_round()?.f_add(&spread(zero_point, x, along)?)?;
    Ok(moved.f_clamp(low, high)?.f_to_kind(kind)?)
}
