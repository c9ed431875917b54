//! `CastLike`: to the element type of another tensor, as Cast does. <https://onnx.ai/onnx/operators/onnx__CastLike.html>
//!
//! Opsets: 15, 19 (float 8, `saturate`), 21 (4 bits), 23 (float 4), 24 (float8e8m0), 25 (2 bits). Refused: strings, uint64,
//! float8e8m0.

use crate::ops::conversion::convert;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;
use crate::torch;

pub const OP: Op = Op::new("CastLike", &[15, 19, 21, 23, 24, 25], |prepare| {
    // A type that is not stated is one that libtorch has itself, which a tensor tells.
    let stated = prepare.dtype(1);
    let saturate = prepare.node.int("saturate", 1)? != 0;
    single(move |a| {
        let to = match stated {
            Some(dtype) => dtype,
            None => torch::dtype_of(a.get(1)?.kind())?,
        };
        convert(a.get(0)?, to, saturate)
    })
})
.limits("strings, uint64, float8e8m0")
.shapes(rules::same_as_first);
