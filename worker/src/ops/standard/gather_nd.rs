//! `GatherND`: slices at tuples of indices. <https://onnx.ai/onnx/operators/onnx__GatherND.html>
//!
//! Opsets: 11, 12 (`batch_dims`), 13.

use tch::{Kind, Tensor};

use crate::ops::indexing::flat;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("GatherND", &[11, 12, 13], |prepare| {
    let batch_dims = prepare.node.int("batch_dims", 0)?;
    single(move |a| gather(a.get(0)?, a.get(1)?, batch_dims))
})
.shapes(rules::gather_nd);

/// Data `[batch…, indexed…, rest…]` at `[batch…, outer…, K]` to `[batch…, outer…, rest…]`.
fn gather(data: &Tensor, indices: &Tensor, batch_dims: i64) -> Result<Tensor> {
    let (size, index_size) = (data.size(), indices.size());
    let depth = index_size.last().copied().unwrap_or(0) as usize;
    let batch = usize::try_from(batch_dims).unwrap_or(usize::MAX);
    let fits = batch < index_size.len()
        && depth > 0
        && batch.checked_add(depth).is_some_and(|indexed| indexed <= size.len())
        && size[..batch] == index_size[..batch];
    if !fits {
        return Err(Error::user(format!(
            "indices of shape {index_size:?} into data of shape {size:?} with `batch_dims` = {batch_dims}"
        )));
    }
    let (indexed, rest) = size[batch..].split_at(depth);
    let slices = indexed.iter().product::<i64>();
    let batches = size[..batch].iter().product::<i64>();
    let mut places = flat(indices, indexed, data)?;
    if batch > 0 {
        let start = Tensor::f_arange(batches, (Kind::Int64, data.device()))?;
        let start = start.f_mul_scalar(slices)?.f_unsqueeze(1)?;
        places = places.f_reshape([batches, -1])?.f_add(&start)?;
    }
    let mut rows = vec![batches * slices];
    rows.extend(rest);
    let mut shape = index_size[..index_size.len() - 1].to_vec();
    shape.extend(rest);
    let picked = data.f_reshape(rows)?.f_index_select(0, &places.f_reshape([-1])?)?;
    Ok(picked.f_reshape(shape)?)
}
