//! `CumSum`: sums of all elements up to each along an axis, `exclusive` without itself, `reverse` from the end.
//! <https://onnx.ai/onnx/operators/onnx__CumSum.html>
//!
//! Opsets: 11, 14 (bfloat16).

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("CumSum", &[11, 14], |prepare| {
    let exclusive = prepare.node.int("exclusive", 0)? != 0;
    let reverse = prepare.node.int("reverse", 0)? != 0;
    single(move |a| {
        let x = a.get(0)?;
        let axes = a.ints(1)?.unwrap_or_default();
        let [axis] = axes[..] else {
            return Err(Error::user(format!("`axis` is {axes:?}, not one number")));
        };
        let axis = axis_from_front(axis, x.dim())?;
        let turned = if reverse { x.f_flip([axis])? } else { x.shallow_clone() };
        let mut sums = turned.f_cumsum(axis, x.kind())?;
        if exclusive {
            sums = sums.f_sub(&turned)?;
        }
        Ok(if reverse { sums.f_flip([axis])? } else { sums })
    })
})
.shapes(rules::same_as_first);
