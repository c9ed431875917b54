//! Indices as the standard gives them, shared by gathers and scatters: negative ones count from the end.

use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Indices of an axis of `extent`, counted from the front, int64 and on the device of `data`.
///
/// Those beyond the axis are left for libtorch to refuse.
pub fn from_front(indices: &Tensor, extent: i64, data: &Tensor) -> Result<Tensor> {
    let indices = indices.f_to_device(data.device())?.f_to_kind(Kind::Int64)?;
    Ok(indices.f_where_self(&indices.f_ge(0)?, &indices.f_add_scalar(extent)?)?)
}

/// Tuples of indices `[…, K]` into the axes `extents` (`[K]`) as places `[…]` in these axes laid out row by row.
///
/// # Errors
/// An index beyond its axis; K other than the count of extents.
pub fn flat(tuples: &Tensor, extents: &[i64], data: &Tensor) -> Result<Tensor> {
    let size = tuples.size();
    if size.last() != Some(&(extents.len() as i64)) {
        return Err(Error::user(format!(
            "indices of shape {size:?} into axes of extents {extents:?}"
        )));
    }
    let mut places = Tensor::f_zeros(&size[..size.len() - 1], (Kind::Int64, data.device()))?;
    for (axis, &extent) in extents.iter().enumerate() {
        let index = from_front(&tuples.f_select(-1, axis as i64)?, extent, data)?;
        // In the axes laid out as one an index beyond its own axis would be an element of another row.
        let beyond = index.f_lt(0)?.f_logical_or(&index.f_ge(extent)?)?.f_any()?;
        if beyond.f_int64_value(&[])? != 0 {
            return Err(Error::user(format!("an index is beyond its axis of {extent}")));
        }
        places = places.f_mul_scalar(extent)?.f_add(&index)?;
    }
    Ok(places)
}
