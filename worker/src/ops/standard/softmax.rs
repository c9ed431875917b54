//! `Softmax`: eˣ over its sum along an axis. <https://onnx.ai/onnx/operators/onnx__Softmax.html>
//!
//! Opsets: 1 (over all axes from `axis` on, default 1), 11 (negative axis), 13 (over one axis, default the last).

use crate::ops::flattened::over_axis;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Softmax", &[1, 11, 13], |p| over_axis(p, |x, axis| Ok(x.f_softmax(axis, None)?)))
        .shapes(rules::same_as_first);
