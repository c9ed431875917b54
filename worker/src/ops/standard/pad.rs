//! `Pad`: margins filled with a constant; negative ones cut off. <https://onnx.ai/onnx/operators/onnx__Pad.html>
//!
//! Opsets: 11 (pads become an input), 13 (bfloat16), 18 (`axes`), 19, 21 to 25 (types). Refused: modes other than `constant`.

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front, single};

pub const OP: Op = Op::new("Pad", &[11, 13, 18, 19, 21, 23, 24, 25], |prepare| {
    let mode = prepare.node.text("mode", "constant")?;
    if mode != "constant" {
        return Err(Error::user(format!("mode \"{mode}\" is not supported, only \"constant\"")));
    }
    single(|a| {
        let input = a.get(0)?;
        let rank = input.dim();
        let pads = a.ints(1)?.ok_or_else(|| Error::user("input `pads` is missing"))?;
        let value = a.optional(2).map(|value| value.f_double_value(&[])).transpose()?;
        let axes = a.ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
        if pads.len() != 2 * axes.len() {
            return Err(Error::user(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        // libtorch counts from the last axis: before, after, before, after.
        let mut all = vec![0; 2 * rank];
        for (index, &axis) in axes.iter().enumerate() {
            let place = 2 * (rank - 1 - axis_from_front(axis, rank)? as usize);
            all[place] = pads[index];
            all[place + 1] = pads[axes.len() + index];
        }
        let padded = input.f_constant_pad_nd(&all)?;
        let Some(value) = value.filter(|&value| value != 0.0) else { return Ok(padded) };
        // tch pads with 0 only: the margin is where a padded tensor of ones has none.
        let margin = input.f_ones_like()?.f_constant_pad_nd(&all)?.f_eq(0)?;
        Ok(padded.f_masked_fill(&margin, value)?)
    })
})
.limits("modes other than `constant`");
