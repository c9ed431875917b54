//! `Trilu`: of matrices, the triangle above or below the diagonal `k`, the rest 0. <https://onnx.ai/onnx/operators/onnx__Trilu.html>
//!
//! Opsets: 14.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

/// `[…, N, M]` to the same.
pub const OP: Op = Op::new("Trilu", &[14], |prepare| {
    let upper = prepare.node.int("upper", 1)? != 0;
    single(move |a| {
        let x = a.get(0)?;
        let diagonal = match &a.ints(1)?.unwrap_or_else(|| vec![0])[..] {
            [diagonal] => *diagonal,
            other => return Err(Error::user(format!("`k` is {other:?}, not one number"))),
        };
        Ok(if upper { x.f_triu(diagonal)? } else { x.f_tril(diagonal)? })
    })
})
.shapes(rules::same_as_first);
