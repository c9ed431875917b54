//! `LpNormalization`: x over its norm of order `p` along `axis`. <https://onnx.ai/onnx/operators/onnx__LpNormalization.html>
//!
//! Opsets: 1, 22 (bfloat16). Where the norm is 0 the result is not a number, as the standard's own case has it.

use crate::Error;
use crate::ops::kernel::{Op, axis_from_front, single};
use crate::ops::reduction::norm;
use crate::shapes::rules;

pub const OP: Op = Op::new("LpNormalization", &[1, 22], |prepare| {
    let axis = prepare.node.int("axis", -1)?;
    let order = match prepare.node.int("p", 2)? {
        1 => 1.0,
        2 => 2.0,
        other => return Err(Error::user(format!("`p` = {other} is not defined, only 1 and 2"))),
    };
    single(move |a| {
        let x = a.get(0)?;
        let norm = norm(x, order, &[axis_from_front(axis, x.dim())?], true)?;
        Ok(x.f_div(&norm)?)
    })
})
.shapes(rules::same_as_first);
