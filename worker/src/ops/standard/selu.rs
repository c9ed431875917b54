//! `Selu`: `gamma` x, or `gamma` `alpha` (eˣ − 1) where x is negative (Klambauer et al. 2017,
//! <https://arxiv.org/abs/1706.02515>). <https://onnx.ai/onnx/operators/onnx__Selu.html>
//!
//! Opsets: 1 (rounder defaults), 6, 22 (bfloat16).

use crate::ops::elementwise::exponential_below_zero;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Selu", &[1, 6, 22], |prepare| {
    let defaults = if prepare.opset < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    let alpha = f64::from(prepare.node.float("alpha", defaults.0)?);
    let gamma = f64::from(prepare.node.float("gamma", defaults.1)?);
    single(move |a| Ok(exponential_below_zero(a.get(0)?, alpha, 1.0)?.f_mul_scalar(gamma)?))
})
.shapes(rules::same_as_first);
