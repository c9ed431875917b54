//! `Squeeze`: removes axes of extent 1, all of them or those named. <https://onnx.ai/onnx/operators/onnx__Squeeze.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (`axes` become an input), 21 to 25 (types).

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Squeeze", &[1, 11, 13, 21, 23, 24, 25], |prepare| {
    let fixed = prepare.moved_ints("axes", 13)?;
    let from_input = prepare.opset >= 13;
    single(move |a| {
        let input = a.get(0)?;
        let axes = if from_input { a.ints(1)? } else { fixed.clone() };
        let Some(axes) = axes else { return Ok(input.f_squeeze()?) };
        for &axis in &axes {
            let axis = axis_from_front(axis, input.dim())?;
            if input.size()[axis as usize] != 1 {
                return Err(Error::user(format!(
                    "axis {axis} of {:?} is not of extent 1",
                    input.size()
                )));
            }
        }
        Ok(input.f_squeeze_dims(axes)?)
    })
})
.shapes(rules::squeeze);
