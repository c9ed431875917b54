//! `DynamicQuantizeLinear`: quantization to uint8 by the range of the input itself.
//! <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>
//!
//! Opsets: 11. Quantized input, scale and zero point; the range always holds 0.

use tch::Kind;

use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("DynamicQuantizeLinear", &[11], |_| {
    Ok(Box::new(|a| {
        let input = a.get(0)?;
        let greatest = input.f_max()?.f_clamp_min(0.0)?;
        let least = input.f_min()?.f_clamp_max(0.0)?;
        let range = greatest.f_sub(&least)?;
        let scale = range.f_masked_fill(&range.f_eq(0.0)?, 1.0)?.f_div_scalar(255.0)?;
        let zero_point = least.f_neg()?.f_div(&scale)?.f_clamp(0.0, 255.0)?.f_round()?;
        let quantized = input.f_div(&scale)?.f_round()?.f_add(&zero_point)?.f_clamp(0.0, 255.0)?;
        let byte = Kind::Uint8;
        Ok(vec![quantized.f_to_kind(byte)?, scale, zero_point.f_to_kind(byte)?])
    }))
})
.without_gradient()
.shapes(rules::quantized_with_parameters);
