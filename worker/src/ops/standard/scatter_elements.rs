//! `ScatterElements`: a copy of the data with an update at each index along `axis`, all other axes as the
//! index stands. <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>
//!
//! Opsets: 11, 13, 16 (`reduction` add and mul), 18 (min and max). Of updates to one place without a
//! reduction the standard says nothing; one of them is left.

use tch::Tensor;

use crate::Result;
use crate::ops::indexing::from_front;
use crate::ops::kernel::{Arguments, Op, axis_from_front, single};
use crate::ops::scatter_reduction::Reduction;
use crate::shapes::rules;

pub const OP: Op = Op::new("ScatterElements", &[11, 13, 16, 18], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    let reduction = Reduction::of(prepare.node)?;
    single(move |a| scatter(a, axis, reduction))
})
.shapes(rules::same_as_first);

/// Data, indices and updates, of which the last two are of one shape.
pub fn scatter(a: &Arguments, axis: i64, reduction: Reduction) -> Result<Tensor> {
    let (data, updates) = (a.get(0)?, a.get(2)?);
    let axis = axis_from_front(axis, data.dim())?;
    let extent = data.size().get(axis as usize).copied().unwrap_or(1);
    let indices = from_front(a.get(1)?, extent, data)?;
    Ok(match reduction {
        Reduction::None => data.f_scatter(axis, &indices, updates)?,
        Reduction::Add => data.f_scatter_add(axis, &indices, updates)?,
        other => data.f_internal_scatter_reduce(axis, &indices, updates, other.name(), true)?,
    })
}
