//! `Size`: how many elements a tensor has. <https://onnx.ai/onnx/operators/onnx__Size.html>
//!
//! Opsets: 1, 13, 19 to 25 (types).

use tch::Tensor;

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Size", &[1, 13, 19, 21, 23, 24, 25], |_| {
    single(|a| Ok(Tensor::from(a.get(0)?.numel() as i64)))
})
.without_gradient()
.shapes(rules::size);
