//! `Gelu`: x times the normal distribution's cumulative, or its `tanh` approximation (Hendrycks and Gimpel 2016,
//! <https://arxiv.org/abs/1606.08415>). <https://onnx.ai/onnx/operators/onnx__Gelu.html>
//!
//! Opsets: 20.

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Gelu", &[20], |prepare| {
    let approximate = prepare.node.text("approximate", "none")?.to_owned();
    if !["none", "tanh"].contains(&approximate.as_str()) {
        return Err(Error::user(format!("`approximate` = {approximate} is not defined")));
    }
    single(move |a| Ok(a.get(0)?.f_gelu(&approximate)?))
})
.shapes(rules::same_as_first);
