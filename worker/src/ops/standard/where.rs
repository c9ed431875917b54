//! `Where`: a where the condition is true, else b, element by element, with broadcasting.
//! <https://onnx.ai/onnx/operators/onnx__Where.html>
//!
//! Opsets: 9, 16 (bfloat16).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Where", &[9, 16], |_| single(|a| Ok(a.get(1)?.f_where_self(a.get(0)?, a.get(2)?)?)))
        .shapes(rules::where_);
