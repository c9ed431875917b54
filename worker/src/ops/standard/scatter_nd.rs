//! `ScatterND`: a copy of the data with updates of slices at tuples of indices.
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>
//!
//! Opsets: 11, 13, 16 (`reduction` add and mul), 18 (min and max). Of updates to one place without a
//! reduction the standard says nothing; one of them is left.

use tch::Tensor;

use crate::ops::indexing::flat;
use crate::ops::kernel::{Op, single};
use crate::ops::scatter_reduction::Reduction;
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("ScatterND", &[11, 13, 16, 18], |prepare| {
    let reduction = Reduction::of(prepare.node)?;
    single(move |a| scatter(a.get(0)?, a.get(1)?, a.get(2)?, reduction))
})
.shapes(rules::same_as_first);

/// Data `[indexed…, rest…]`, indices `[outer…, K]`, updates `[outer…, rest…]`.
fn scatter(
    data: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
    reduction: Reduction,
) -> Result<Tensor> {
    let (size, index_size) = (data.size(), indices.size());
    let depth = index_size.last().map_or(usize::MAX, |&depth| depth as usize);
    if depth > size.len() {
        return Err(Error::user(format!(
            "indices of shape {index_size:?} into data of shape {size:?}"
        )));
    }
    let (indexed, rest) = size.split_at(depth);
    let mut expected = index_size[..index_size.len() - 1].to_vec();
    expected.extend(rest);
    if updates.size() != expected {
        return Err(Error::user(format!(
            "updates of shape {:?}, expected {expected:?}",
            updates.size()
        )));
    }
    let places = flat(indices, indexed, data)?.f_reshape([-1])?;
    let (slices, length) = (indexed.iter().product::<i64>(), rest.iter().product::<i64>());
    let rows = data.f_reshape([slices, length])?;
    let updates = updates.f_reshape([places.numel() as i64, length])?;
    let scattered = match reduction {
        Reduction::None => rows.f_index_copy(0, &places, &updates)?,
        Reduction::Add => rows.f_index_add(0, &places, &updates)?,
        // By elements: libtorch knows how a gradient goes through this one, ties included.
        other => {
            let places = places.f_unsqueeze(1)?.f_expand([-1, length], false)?;
            rows.f_internal_scatter_reduce(0, &places, &updates, other.name(), true)?
        }
    };
    Ok(scattered.f_reshape(size)?)
}
