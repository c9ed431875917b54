//! `QuantizeLinear`: saturate(round half to even(x / scale) + zero point), per tensor or per channel.
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>
//!
//! Opsets: 10, 13 (`axis`), 19 (float 8), 21 (`output_dtype`, blocks), 23 to 25 (types). To int8, uint8 and int16. Refused: blocks,
//! types of 4 bits, float 8, uint16.

use tch::Kind;

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::quantization::{along, axis_of, output_dtype, range};
use crate::{Error, Result, torch};

pub const OP: Op = Op::new("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25], prepare)
    .limits("blocks; types of 4 bits, float 8, uint16");

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let axis = axis_of(prepare)?;
    let fixed = output_dtype(prepare.node, None)?;
    let has_zero_point = prepare.node.input(2).is_some();
    single(move |arguments| {
        let (x, scale) = (arguments.get(0)?, arguments.get(1)?);
        let zero_point = arguments.optional(2);
        let dtype = match zero_point {
            Some(zero_point) if has_zero_point => torch::dtype_of(zero_point.kind())?,
            _ => fixed,
        };
        let (low, high) = range(dtype).ok_or_else(|| {
            Error::user(format!("quantization to {} is not supported", dtype.name()))
        })?;
        let rounded = x.f_div(&along(scale, x, axis)?)?.f_round()?;
        let moved = match zero_point {
            Some(zero) => rounded.f_add(&along(zero, x, axis)?.f_to_kind(Kind::Float)?)?,
            None => rounded,
        };
        Ok(moved.f_clamp(low, high)?.f_to_kind(torch::kind_of(dtype)?)?)
    })
}
