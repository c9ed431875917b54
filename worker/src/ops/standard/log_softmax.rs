//! `LogSoftmax`: the logarithm of Softmax, in one step. <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>
//!
//! Opsets: 1 (over all axes from `axis` on, default 1), 11 (negative axis), 13 (over one axis, default the last).

use crate::ops::flattened::over_axis;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("LogSoftmax", &[1, 11, 13], |p| {
    over_axis(p, |x, axis| Ok(x.f_log_softmax(axis, None)?))
})
.shapes(rules::same_as_first);
