//! `Split`: parts along `axis`, of the lengths in `split`, else as equal as can be. <https://onnx.ai/onnx/operators/onnx__Split.html>
//!
//! Opsets: 1 (`split` an attribute or an input), 2 (an attribute), 11 (negative axis), 13 (an input), 18 (`num_outputs`).

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front};
use crate::shapes::rules;

pub const OP: Op = Op::new("Split", &[1, 2, 11, 13, 18], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    let fixed = prepare.moved_ints("split", 13)?;
    let from_input = prepare.opset >= 13 || (prepare.opset == 1 && prepare.node.input(1).is_some());
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
})
.shapes(rules::split);
