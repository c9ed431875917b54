//! `Cast`: to the element type `to`. <https://onnx.ai/onnx/operators/onnx__Cast.html>
//!
//! Opsets: 1 (`to` is a name), 6 (a number), 9 (strings), 13 (bfloat16), 19 (float 8, `saturate`), 21 (4 bits), 23 (float 4), 24
//! (float8e8m0), 25 (2 bits). Refused: strings, uint64, float8e8m0.

use crate::ops::conversion::{cast_target, convert};
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Cast", &[1, 6, 9, 13, 19, 21, 23, 24, 25], |prepare| {
    let to = cast_target(prepare.node)?;
    let saturate = prepare.node.int("saturate", 1)? != 0;
    single(move |a| convert(a.get(0)?, to, saturate))
})
.limits("strings, uint64, float8e8m0")
.shapes(rules::cast);
