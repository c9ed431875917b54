//! `Identity`: nothing done. <https://onnx.ai/onnx/operators/onnx__Identity.html>
//!
//! Opsets: 1, 13, 14 (sequences), 16 (optional values), 19 to 25 (types).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25], |_| {
    single(|a| Ok(a.get(0)?.shallow_clone()))
})
.limits("sequences and optional values")
.shapes(rules::same);
