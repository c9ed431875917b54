//! Parts of tensors and margins round them: <https://onnx.ai/onnx/operators/onnx__Slice.html>,
//! <https://onnx.ai/onnx/operators/onnx__Split.html>, <https://onnx.ai/onnx/operators/onnx__Pad.html>.
//!
//! Opsets: Slice 10 (everything an input), 11, 13; Split 2, 11, 13 (`split` becomes an input), 18 (`num_outputs`); Pad 11 (pads
//! become an input), 13, 18 (`axes`), 19, 21 to 25. Refused: Pad in other modes than `constant`.

use tch::{Kind, Tensor};

use super::kernel::{Op, axis_from_front, single};
use crate::{Error, Result};

/// `Slice`: from `starts` to `ends` along `axes`, in `steps`, which may be negative.
pub const SLICE: Op = Op::new("Slice", &[10, 11, 13], |_| {
    single(|a| {
        let missing = |name: &str| Error::user(format!("input `{name}` is missing"));
        let starts = a.ints(1)?.ok_or_else(|| missing("starts"))?;
        let ends = a.ints(2)?.ok_or_else(|| missing("ends"))?;
        let axes = a.ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = a.ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        let lengths = [ends.len(), axes.len(), steps.len()];
        if lengths != [starts.len(); 3] {
            return Err(Error::user("starts, ends, axes and steps differ in length"));
        }
        let mut part = a.get(0)?.shallow_clone();
        for (index, &axis) in axes.iter().enumerate() {
            part = slice(&part, axis, starts[index], ends[index], steps[index])?;
        }
        Ok(part)
    })
});

/// One axis; bounds beyond the tensor are its ends, as in NumPy.
fn slice(x: &Tensor, axis: i64, start: i64, end: i64, step: i64) -> Result<Tensor> {
    let axis = axis_from_front(axis, x.dim())?;
    let extent = x.size()[axis as usize];
    let from_front = |bound: i64| if bound < 0 { bound.saturating_add(extent) } else { bound };
    match step {
        0 => Err(Error::user("a step of 0")),
        1.. => {
            let bound = |bound| from_front(bound).clamp(0, extent);
            Ok(x.f_slice(axis, bound(start), bound(end).max(bound(start)), step)?)
        }
        _ => {
            // Down from `start` to before `end`; -1 is before the first.
            let bound = |bound| from_front(bound).clamp(-1, extent - 1);
            let (start, end) = (bound(start), bound(end));
            let count = ((start - end).max(0) + step.abs() - 1) / step.abs();
            let indices: Vec<i64> = (0..count).map(|index| start + index * step).collect();
            let indices = Tensor::f_from_slice(&indices)?.f_to_device(x.device())?;
            Ok(x.f_index_select(axis, &indices.f_to_kind(Kind::Int64)?)?)
        }
    }
}

/// `Split`: parts along `axis`, of the lengths in `split`, else as equal as can be.
pub const SPLIT: Op = Op::new("Split", &[2, 11, 13, 18], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    let fixed = prepare.moved_ints("split", 13)?;
    let from_input = prepare.opset >= 13;
    let parts = prepare.node.outputs.len() as i64;
    Ok(Box::new(move |a| {
        let input = a.get(0)?;
        let axis = axis_from_front(axis, input.dim())?;
        let lengths = if from_input { a.ints(1)? } else { fixed.clone() };
        let extent = input.size()[axis as usize];
        let lengths = lengths.unwrap_or_else(|| {
            // The last is shorter where they do not divide.
            let whole = (extent + parts - 1) / parts.max(1);
            (0..parts).map(|part| (extent - part * whole).clamp(0, whole)).collect()
        });
        if lengths.iter().sum::<i64>() != extent || lengths.len() as i64 != parts {
            return Err(Error::user(format!(
                "lengths {lengths:?} for {parts} outputs of an axis of {extent}"
            )));
        }
        Ok(input.f_split_with_sizes(&lengths, axis)?)
    }))
});

/// `Pad` with a constant; negative pads cut off.
pub const PAD: Op = Op::new("Pad", &[11, 13, 18, 19, 21, 23, 24, 25], |prepare| {
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
});
