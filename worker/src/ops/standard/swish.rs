//! `Swish`: x / (1 + e^(-`alpha` x)) (Ramachandran et al. 2017, <https://arxiv.org/abs/1710.05941>).
//! <https://onnx.ai/onnx/operators/onnx__Swish.html>
//!
//! Opsets: 24.

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Swish", &[24], |prepare| {
    let alpha = f64::from(prepare.node.float("alpha", 1.0)?);
    single(move |a| {
        let x = a.get(0)?;
        Ok(x.f_mul(&x.f_mul_scalar(alpha)?.f_sigmoid()?)?)
    })
})
.shapes(rules::same_as_first);
