//! `Softsign`: x / (1 + |x|). <https://onnx.ai/onnx/operators/onnx__Softsign.html>
//!
//! Opsets: 1, 22 (bfloat16).

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Softsign", &[1, 22], |_| unary(|x| x.f_div(&x.f_abs()?.f_add_scalar(1.0)?)))
        .shapes(rules::same_as_first);
