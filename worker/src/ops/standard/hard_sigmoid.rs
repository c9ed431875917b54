//! `HardSigmoid`: max(0, min(1, `alpha` x + `beta`)). <https://onnx.ai/onnx/operators/onnx__HardSigmoid.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 22 (bfloat16).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("HardSigmoid", &[1, 6, 22], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 0.2)?);
    let beta = f64::from(prepare.node.float("beta", 0.5)?);
    single(move |a| Ok(a.get(0)?.f_mul_scalar(alpha)?.f_add_scalar(beta)?.f_clamp(0.0, 1.0)?))
})
.shapes(rules::same_as_first);
