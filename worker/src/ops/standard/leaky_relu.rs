//! `LeakyRelu`: x, or `alpha` x where x is negative. <https://onnx.ai/onnx/operators/onnx__LeakyRelu.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 16 (bfloat16).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("LeakyRelu", &[1, 6, 16], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 0.01)?);
    single(move |a| {
        let x = a.get(0)?;
        let scaled = x.f_mul_scalar(alpha)?;
        Ok(x.f_where_self(&x.f_ge(0.0)?, &scaled)?)
    })
})
.shapes(rules::same_as_first);
