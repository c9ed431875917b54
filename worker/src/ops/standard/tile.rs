//! `Tile`: the input, repeated along each axis. <https://onnx.ai/onnx/operators/onnx__Tile.html>
//!
//! Opsets: 6, 13. Opset 1, of one axis, is not executed.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Tile", &[6, 13], |_| {
    single(|a| {
        let input = a.get(0)?;
        let repeats = a.ints(1)?.ok_or_else(|| Error::user("input `repeats` is missing"))?;
        if repeats.len() != input.dim() || repeats.iter().any(|&count| count < 0) {
            return Err(Error::user(format!(
                "repeats {repeats:?} of a tensor of rank {}",
                input.dim()
            )));
        }
        Ok(input.f_repeat(repeats)?)
    })
})
.shapes(rules::tile);
