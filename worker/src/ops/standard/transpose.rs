//! `Transpose`: the axes in the order `perm`, without it reversed. <https://onnx.ai/onnx/operators/onnx__Transpose.html>
//!
//! Opsets: 1, 13, 21 to 25 (types).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Transpose", &[1, 13, 21, 23, 24, 25], |prepare| {
    let perm = prepare.node.ints("perm")?.map(<[i64]>::to_vec);
    single(move |a| {
        let input = a.get(0)?;
        let reversed = || (0..input.dim() as i64).rev().collect();
        Ok(input.f_permute(perm.clone().unwrap_or_else(reversed))?)
    })
})
.shapes(rules::transpose);
