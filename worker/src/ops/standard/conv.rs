//! `Conv`: convolution. <https://onnx.ai/onnx/operators/onnx__Conv.html>
//!
//! Opsets: 1, 11 (defaults of strides and dilations), 22 (bfloat16). One, two or three spatial axes,
//! groups, dilations, `auto_pad`; asymmetric pads are padded first.

use crate::ops::convolution::Convolution;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Conv", &[1, 11, 22], |prepare| {
    let convolution = Convolution::of(prepare)?;
    single(move |a| convolution.run(a.get(0)?, a.get(1)?, a.optional(2)))
})
.shapes(rules::conv);
