//! `Flatten`: to a matrix, the axes before `axis` and those from it on. <https://onnx.ai/onnx/operators/onnx__Flatten.html>
//!
//! Opsets: 1, 9 (all types), 11 (negative axis), 13, 21 to 25 (types).

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Flatten", &[1, 9, 11, 13, 21, 23, 24, 25], |prepare| {
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
})
.shapes(rules::flatten);
