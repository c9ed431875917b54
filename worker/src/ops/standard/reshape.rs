//! `Reshape`: the same elements in another shape; 0 copies the input's extent, -1 takes what is left.
//! <https://onnx.ai/onnx/operators/onnx__Reshape.html>
//!
//! Opsets: 1 (`shape` is an attribute), 5 (an input), 13, 14 (`allowzero`), 19 to 25 (types).

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Reshape", &[1, 5, 13, 14, 19, 21, 23, 24, 25], |prepare| {
    let allow_zero = prepare.node.int("allowzero", 0)? != 0;
    let fixed = prepare.moved_ints("shape", 5)?;
    let from_input = prepare.opset >= 5;
    single(move |a| {
        let input = a.get(0)?;
        let shape = if from_input { a.ints(1)? } else { fixed.clone() };
        let mut shape = shape.ok_or_else(|| Error::user("`shape` is missing"))?;
        let size = input.size();
        for (axis, extent) in shape.iter_mut().enumerate().filter(|(_, e)| **e == 0) {
            if !allow_zero {
                *extent = *size.get(axis).ok_or_else(|| {
                    Error::user(format!("shape copies axis {axis} of an input of {size:?}"))
                })?;
            }
        }
        Ok(input.f_reshape(shape)?)
    })
})
.shapes(rules::reshape);
