//! `Celu`: x, or `alpha` (e^(x / `alpha`) − 1) where x is negative (Barron 2017, <https://arxiv.org/abs/1704.07483>).
//! <https://onnx.ai/onnx/operators/onnx__Celu.html>
//!
//! Opsets: 12.

use crate::Error;
use crate::ops::elementwise::exponential_below_zero;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Celu", &[12], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 1.0)?);
    if alpha == 0.0 {
        return Err(Error::user("`alpha` is 0, by which x is divided"));
    }
    single(move |a| exponential_below_zero(a.get(0)?, alpha, 1.0 / alpha))
})
.shapes(rules::same_as_first);
