//! `Elu`: x, or `alpha` (eˣ − 1) where x is negative (Clevert et al. 2015, <https://arxiv.org/abs/1511.07289>).
//! <https://onnx.ai/onnx/operators/onnx__Elu.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 22 (bfloat16).

use crate::ops::elementwise::exponential_below_zero;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Elu", &[1, 6, 22], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 1.0)?);
    single(move |a| exponential_below_zero(a.get(0)?, alpha, 1.0))
})
.shapes(rules::same_as_first);
