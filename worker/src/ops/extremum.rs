//! Where the greatest or least element along an axis is, shared by ArgMax and ArgMin.

use tch::Tensor;

use super::kernel::{Kernel, Prepare, axis_from_front, single};
use crate::Result;

/// Of equal elements the first counts, or the last where `select_last_index` says so; `first` finds the first
/// along an axis, and keeps the axis or not.
pub fn index(prepare: &Prepare, first: fn(&Tensor, i64, bool) -> Result<Tensor>) -> Result<Kernel> {
    let axis = prepare.node.int("axis", 0)?;
    let keep = prepare.node.int("keepdims", 1)? != 0;
    let last = prepare.node.int("select_last_index", 0)? != 0;
    single(move |a| {
        let input = a.get(0)?;
        let axis = axis_from_front(axis, input.dim())?;
        if !last {
            return first(input, axis, keep);
        }
        let extent = input.size().get(axis as usize).copied().unwrap_or(1);
        let from_end = first(&input.f_flip([axis])?, axis, keep)?;
        Ok(from_end.f_neg()?.f_add_scalar(extent - 1)?)
    })
}
