//! `TopK`: the greatest or least elements along an axis, and where they are.
//! <https://onnx.ai/onnx/operators/onnx__TopK.html>
//!
//! Opsets: 1 (`k` an attribute), 10, 11 (`largest`, `sorted`), 24. Of equal elements the one of the lower
//! index is first; the result is sorted also where `sorted` = 0 leaves the order open.

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front};
use crate::shapes::rules;

pub const OP: Op = Op::new("TopK", &[1, 10, 11, 24], |prepare| {
    let node = prepare.node;
    let axis = node.int("axis", -1)?;
    let largest = node.int("largest", 1)? != 0;
    let fixed = if prepare.opset < 10 { Some(node.int("k", -1)?) } else { None };
    Ok(Box::new(move |a| {
        let input = a.get(0)?;
        let axis = axis_from_front(axis, input.dim())?;
        let extent = input.size().get(axis as usize).copied().unwrap_or(1);
        let k = match fixed {
            Some(k) => k,
            None => a.ints(1)?.and_then(|k| k.first().copied()).unwrap_or(-1),
        };
        if !(0..=extent).contains(&k) {
            return Err(Error::user(format!("the top {k} of an axis of {extent}")));
        }
        // libtorch's `topk` leaves open which of equal elements it takes; a stable sort does not.
        let (values, indices) = input.f_sort_stable(true, axis, largest)?;
        Ok(vec![values.f_narrow(axis, 0, k)?, indices.f_narrow(axis, 0, k)?])
    }))
})
.shapes(rules::top_k);
