//! `Unsqueeze`: inserts axes of extent 1; `axes` count in the output. <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (`axes` become an input), 21 to 25 (types).

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25], |prepare| {
    let fixed = prepare.moved_ints("axes", 13)?;
    single(move |a| {
        let input = a.get(0)?;
        let axes = match &fixed {
            Some(axes) => Some(axes.clone()),
            None => a.ints(1)?,
        };
        let axes = axes.ok_or_else(|| Error::user("`axes` are missing"))?;
        let rank = input.dim() + axes.len();
        let axes = axes.iter().map(|&axis| axis_from_front(axis, rank));
        let mut axes = axes.collect::<crate::Result<Vec<_>>>()?;
        axes.sort_unstable();
        let start = input.shallow_clone();
        axes.into_iter().try_fold(start, |x, axis| Ok(x.f_unsqueeze(axis)?))
    })
})
.shapes(rules::unsqueeze);
