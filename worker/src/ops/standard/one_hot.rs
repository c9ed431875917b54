//! `OneHot`: one of two values along a new axis, the second at the index.
//! <https://onnx.ai/onnx/operators/onnx__OneHot.html>
//!
//! Opsets: 9, 11 (negative indices). An index beyond the new axis marks nothing.

use tch::{Kind, Tensor};

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("OneHot", &[9, 11], |prepare| {
    let axis = prepare.node.int("axis", -1)?;
    let from_end = prepare.opset >= 11;
    single(move |a| {
        let (indices, values) = (a.get(0)?, a.get(2)?);
        let depth = a.ints(1)?.and_then(|depth| depth.first().copied()).unwrap_or(-1);
        if depth < 0 || values.size() != [2] {
            return Err(Error::user(format!(
                "a depth of {depth} and values of shape {:?}, expected a count and two values",
                values.size()
            )));
        }
        let device = values.device();
        let indices = indices.f_to_device(device)?.f_to_kind(Kind::Int64)?;
        let rank = indices.dim() + 1;
        let axis = axis_from_front(axis, rank)?;
        let indices = if from_end {
            indices.f_where_self(&indices.f_ge(0)?, &indices.f_add_scalar(depth)?)?
        } else {
            indices
        };
        let mut shape = vec![1; rank];
        shape[axis as usize] = depth;
        let range = Tensor::f_arange(depth, (Kind::Int64, device))?.f_reshape(shape)?;
        let marked = indices.f_unsqueeze(axis)?.f_eq_tensor(&range)?;
        Ok(values.f_select(0, 1)?.f_where_self(&marked, &values.f_select(0, 0)?)?)
    })
})
.shapes(rules::one_hot);
