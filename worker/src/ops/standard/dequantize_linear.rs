//! `DequantizeLinear`: (x − zero point) scale, per tensor or per channel.
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>
//!
//! Opsets: 10, 13 (`axis`), 19 (float 8), 21 (blocks), 23 to 25 (types). From int8, uint8, int16 and int32. Refused: blocks,
//! types of 4 bits, float 8, uint16.

use tch::Kind;

use crate::Result;
use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::quantization::{along, axis_of};

pub const OP: Op = Op::new("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25], prepare)
    .limits("blocks; types of 4 bits, float 8, uint16");

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let axis = axis_of(prepare)?;
    single(move |arguments| {
        let (x, scale) = (arguments.get(0)?, arguments.get(1)?);
        let kind = if x.kind() == Kind::Int { Kind::Double } else { scale.kind() };
        let centred = match arguments.optional(2) {
            // In integers wide enough: two int8 may be 255 apart.
            Some(zero) => x
                .f_to_kind(Kind::Int64)?
                .f_sub(&along(zero, x, axis)?.f_to_kind(Kind::Int64)?)?
                .f_to_kind(kind)?,
            None => x.f_to_kind(kind)?,
        };
        Ok(centred.f_mul(&along(scale, x, axis)?.f_to_kind(kind)?)?.f_to_kind(scale.kind())?)
    })
}
