//! `DequantizeLinear`: (x − zero point) scale, per tensor, per channel or in blocks.
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>
//!
//! Opsets: 10, 13 (`axis`), 19 (float 8), 21 (blocks), 23 (`output_dtype`) to 25 (types). From integers of 2 to 16
//! bits and int32, float 8 and float 4.

use tch::Kind;

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::quantization::{Grouping, dtype_of_number, require_zero};
use crate::shapes::rules;
use crate::{Result, torch};

pub const OP: Op = Op::new("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25], prepare)
    .shapes(rules::same_as_first);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let grouping = Grouping::of(prepare)?;
    let output = match prepare.node.int("output_dtype", 0)? {
        0 => None,
        number => Some(torch::kind_of(dtype_of_number("output_dtype", number)?)?),
    };
    single(move |a| {
        let (x, scale, zero_point) = (a.get(0)?, a.get(1)?, a.optional(2));
        // float32 does not hold all of int32.
        let wide = matches!(x.kind(), Kind::Int) || scale.kind() == Kind::Double;
        let kind = if wide { Kind::Double } else { Kind::Float };
        let integers =
            matches!(x.kind(), Kind::Int8 | Kind::Uint8 | Kind::Int16 | Kind::Int | Kind::Int64);
        let centred = match zero_point {
            // In integers wide enough: two int8 may be 255 apart.
            Some(zero) if integers => x
                .f_to_kind(Kind::Int64)?
                .f_sub(&grouping.spread(zero, x)?.f_to_kind(Kind::Int64)?)?
                .f_to_kind(kind)?,
            zero_point => {
                require_zero(zero_point)?;
                x.f_to_kind(kind)?
            }
        };
        let product = centred.f_mul(&grouping.spread(scale, x)?.f_to_kind(kind)?)?;
        Ok(product.f_to_kind(output.unwrap_or(scale.kind()))?)
    })
}
