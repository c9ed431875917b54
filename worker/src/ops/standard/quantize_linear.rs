//! `QuantizeLinear`: saturate(round half to even(x / scale) + zero point), per tensor, per channel or in blocks.
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>
//!
//! Opsets: 10, 13 (`axis`), 19 (float 8), 21 (`output_dtype`, blocks), 23 (`precision`) to 25 (types). To integers of 2
//! to 16 bits, float 8 and float 4.

use tch::Kind;

use crate::graph::DType;
use crate::ops::conversion::to_small_float;
use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::quantization::{Grouping, dtype_of_number, output_dtype, range, require_zero};
use crate::shapes::rules;
use crate::{Result, torch};

pub const OP: Op =
    Op::new("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25], prepare).shapes(rules::same_as_first);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let grouping = Grouping::of(prepare)?;
    // Of a zero point whose type nobody states it is told at run time.
    let dtype = match (node.input(2), prepare.dtype(2)) {
        (Some(_), None) => None,
        (_, zero_point) => Some(output_dtype(node, zero_point)?),
    };
    let saturate = node.int("saturate", 1)? != 0;
    let precision = match node.int("precision", 0)? {
        0 => None,
        number => Some(torch::kind_of(dtype_of_number("precision", number)?)?),
    };
    single(move |a| {
        let (x, scale, zero_point) = (a.get(0)?, a.get(1)?, a.optional(2));
        let dtype = match (dtype, zero_point) {
            (None, Some(zero_point)) => torch::dtype_of(zero_point.kind())?,
            (dtype, _) => dtype.unwrap_or(DType::U8),
        };
        let scale = grouping.spread(scale, x)?;
        let scaled = match precision {
            Some(kind) => x.f_to_kind(kind)?.f_div(&scale.f_to_kind(kind)?)?,
            None => x.f_div(&scale)?,
        };
        if let Some((low, high)) = range(dtype) {
            let wide = if scaled.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let rounded = scaled.f_round()?.f_to_kind(wide)?;
            let moved = match zero_point {
                Some(zero) => rounded.f_add(&grouping.spread(zero, x)?.f_to_kind(wide)?)?,
                None => rounded,
            };
            return Ok(moved.f_clamp(low, high)?.f_to_kind(torch::carrier_of(dtype)?)?);
        }
        require_zero(zero_point)?;
        to_small_float(&scaled, dtype, saturate)
    })
}
