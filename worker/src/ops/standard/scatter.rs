//! `Scatter`: the older name of ScatterElements. <https://onnx.ai/onnx/operators/onnx__Scatter.html>
//!
//! Opsets: 9; the standard withdrew it with opset 11.

use crate::ops::kernel::{Op, single};
use crate::ops::scatter_reduction::Reduction;
use crate::ops::standard::scatter_elements::scatter;
use crate::shapes::rules;

pub const OP: Op = Op::new("Scatter", &[9], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    single(move |a| scatter(a, axis, Reduction::None))
})
.until(10)
.shapes(rules::same_as_first);
