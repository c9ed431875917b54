//! New shapes of the same elements: <https://onnx.ai/onnx/operators/onnx__Reshape.html>,
//! <https://onnx.ai/onnx/operators/onnx__Flatten.html>.
//!
//! Opsets: Reshape 5, 13, 14 (`allowzero`), 19 to 25; Flatten 9, 11 (negative axis), 13, 21 to 25.

use super::kernel::{Op, single};
use crate::Error;

/// `Reshape`: 0 copies the input's extent, -1 takes what is left.
pub const RESHAPE: Op = Op::new("Reshape", &[5, 13, 14, 19, 21, 23, 24, 25], |prepare| {
    let allow_zero = prepare.node.int("allowzero", 0)? != 0;
    single(move |a| {
        let input = a.get(0)?;
        let mut shape = a.ints(1)?.ok_or_else(|| Error::user("input `shape` is missing"))?;
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
});

/// `Flatten`: to a matrix, the axes before `axis` and those from it on.
pub const FLATTEN: Op = Op::new("Flatten", &[9, 11, 13, 21, 23, 24, 25], |prepare| {
    let axis = prepare.node.int("axis", 1)?;
    single(move |a| {
        let input = a.get(0)?;
        let size = input.size();
        let rank = size.len() as i64;
        let from_front = if axis < 0 { axis + rank } else { axis };
        if !(0..=rank).contains(&from_front) {
            return Err(Error::user(format!("axis {axis} of an input of {size:?}")));
        }
        let (rows, columns) = size.split_at(from_front as usize);
        let shape: [i64; 2] = [rows.iter().product(), columns.iter().product()];
        Ok(input.f_reshape(shape)?)
    })
});
