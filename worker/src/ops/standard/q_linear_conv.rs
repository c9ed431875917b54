//! `QLinearConv`: convolution of quantized tensors, quantized.
//! <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>
//!
//! Opsets: 10. The weight per tensor or per output channel; the bias, int32, at the product of the scales of input and
//! weight.

use tch::Kind;

use crate::ops::convolution::Convolution;
use crate::ops::integers::{Along, centred, saturated, spread};
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("QLinearConv", &[10], |prepare| {
    let convolution = Convolution::of(prepare)?;
    single(move |a| {
        let input = centred(a.get(0)?, a.optional(2), Along::Second)?;
        let weight = centred(a.get(3)?, a.optional(5), Along::First)?;
        let bias = a.optional(8).map(|bias| bias.f_to_kind(Kind::Double)).transpose()?;
        let sums = convolution.run(&input, &weight, bias.as_ref())?;
        let scale = spread(a.get(1)?, &sums, Along::Second)?;
        let scale = scale.f_mul(&spread(a.get(4)?, &sums, Along::Second)?)?;
        let scale = scale.f_div(&spread(a.get(6)?, &sums, Along::Second)?)?;
        saturated(&sums.f_mul(&scale)?, a.get(7)?, Along::Second)
    })
})
.without_gradient()
.shapes(rules::qlinear_conv);
