//! `Mod`: what remains of a / b, with the sign of b, or with `fmod` = 1 that of a. <https://onnx.ai/onnx/operators/onnx__Mod.html>
//!
//! Opsets: 10, 13 (bfloat16). Floats need `fmod` = 1, as the standard says.

use tch::Tensor;

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;
use crate::torch::is_float;

pub const OP: Op = Op::new("Mod", &[10, 13], |prepare| {
    let fmod = prepare.node.int("fmod", 0)? != 0;
    single(move |arguments| {
        let (a, b): (&Tensor, &Tensor) = (arguments.get(0)?, arguments.get(1)?);
        if fmod {
            return Ok(a.f_fmod_tensor(b)?);
        }
        if is_float(a) {
            return Err(Error::user("floats without `fmod` = 1"));
        }
        Ok(a.f_remainder_tensor(b)?)
    })
})
.shapes(rules::modulo);
