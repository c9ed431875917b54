//! `NonZero`: where elements are not zero, `[rank, count]`, row by row.
//! <https://onnx.ai/onnx/operators/onnx__NonZero.html>
//!
//! Opsets: 9, 13. The places in a scalar have no coordinates: `[0, count]`.

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op =
    Op::new("NonZero", &[9, 13], |_| single(|a| Ok(a.get(0)?.f_nonzero()?.f_transpose(0, 1)?)))
        .without_gradient()
        .shapes(rules::non_zero);
