//! `InstanceNormalization`: per sample and channel, (x − mean) / √(variance + `epsilon`) scale + bias (Ulyanov et al. 2016,
//! <https://arxiv.org/abs/1607.08022>). <https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 22 (bfloat16).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

/// `[N, C, spatial…]` and scale and bias of `[C]` to `[N, C, spatial…]`.
pub const OP: Op = Op::new("InstanceNormalization", &[1, 6, 22], |prepare| {
    let epsilon = f64::from(prepare.node.float("epsilon", 1e-5)?);
    single(move |a| {
        let (x, scale, bias) = (a.get(0)?, a.get(1)?, a.get(2)?);
        // Its own statistics, kept nowhere, also while training.
        Ok(x.f_instance_norm(Some(scale), Some(bias), None, None, true, 0.0, epsilon, true)?)
    })
})
.shapes(rules::same_as_first);
