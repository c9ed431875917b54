//! `Gather`: slices of `data` along `axis`, at `indices`. <https://onnx.ai/onnx/operators/onnx__Gather.html>
//!
//! Opsets: 1, 11 (negative indices), 13 (bfloat16).

use tch::Kind;

use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Gather", &[1, 11, 13], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    single(move |a| {
        let (data, indices) = (a.get(0)?, a.get(1)?);
        let size = data.size();
        let axis = axis_from_front(axis, size.len())?;
        let extent = size[axis as usize];
        let flat = indices.f_to_device(data.device())?.f_to_kind(Kind::Int64)?;
        let flat = flat.f_reshape([-1])?;
        let flat = flat.f_where_self(&flat.f_ge(0)?, &flat.f_add_scalar(extent)?)?;
        let mut shape = size[..axis as usize].to_vec();
        shape.extend(indices.size());
        shape.extend(&size[axis as usize + 1..]);
        Ok(data.f_index_select(axis, &flat)?.f_reshape(shape)?)
    })
})
.shapes(rules::gather);
