//! `Expand`: to a shape by broadcasting, in which the input's own extents hold where the shape has 1.
//! <https://onnx.ai/onnx/operators/onnx__Expand.html>
//!
//! Opsets: 8, 13 (bfloat16).

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Expand", &[8, 13], |_| {
    single(|a| {
        let input = a.get(0)?;
        let mut shape = a.ints(1)?.ok_or_else(|| Error::user("input `shape` is missing"))?;
        let size = input.size();
        let rank = shape.len().max(size.len());
        shape.splice(0..0, vec![1; rank - shape.len()]);
        for (extent, &own) in shape.iter_mut().rev().zip(size.iter().rev()) {
            if *extent == 1 {
                *extent = own;
            }
        }
        Ok(input.f_expand(shape, false)?)
    })
})
.shapes(rules::expand);
