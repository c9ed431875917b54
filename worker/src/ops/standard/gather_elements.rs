//! `GatherElements`: for each index the element at it along `axis`, all other axes as the index stands.
//! <https://onnx.ai/onnx/operators/onnx__GatherElements.html>
//!
//! Opsets: 11, 13.

use crate::ops::indexing::from_front;
use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("GatherElements", &[11, 13], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    single(move |a| {
        let data = a.get(0)?;
        let axis = axis_from_front(axis, data.dim())?;
        let extent = data.size().get(axis as usize).copied().unwrap_or(1);
        Ok(data.f_gather(axis, &from_front(a.get(1)?, extent, data)?, false)?)
    })
})
.shapes(rules::gather_elements);
