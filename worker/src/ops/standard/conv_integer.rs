//! `ConvInteger`: convolution of 8-bit integers to int32.
//! <https://onnx.ai/onnx/operators/onnx__ConvInteger.html>
//!
//! Opsets: 10.

use tch::Kind;

use crate::ops::convolution::Convolution;
use crate::ops::integers::{Along, centred};
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("ConvInteger", &[10], |prepare| {
    let convolution = Convolution::of(prepare)?;
    single(move |a| {
        let input = centred(a.get(0)?, a.optional(2), Along::Second)?;
        let weight = centred(a.get(1)?, a.optional(3), Along::First)?;
        Ok(convolution.run(&input, &weight, None)?.f_to_kind(Kind::Int)?)
    })
})
.without_gradient()
.shapes(rules::conv);
