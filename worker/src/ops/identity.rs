//! Nothing done: <https://onnx.ai/onnx/operators/onnx__Identity.html>,
//! <https://onnx.ai/onnx/operators/onnx__Dropout.html>.
//!
//! Opsets: Identity 1, 13, 14, 16, 19 to 25; Dropout 7, 10, 12 (ratio becomes an input), 13, 22. Dropout
//! drops in training only, whatever its input `training_mode` says; its mask output is refused.

use super::kernel::{Kernel, Op, Prepare, single};
use crate::{Error, Result};

/// `Identity`.
pub const IDENTITY: Op = Op::new("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25], |_| {
    single(|a| Ok(a.get(0)?.shallow_clone()))
});

/// `Dropout`.
pub const DROPOUT: Op = Op::new("Dropout", &[7, 10, 12, 13, 22], dropout);

fn dropout(prepare: &Prepare) -> Result<Kernel> {
    if prepare.node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return Err(Error::user("the output of the mask is not supported"));
    }
    let from_attribute = prepare.opset < 12;
    let fixed = f64::from(prepare.node.float("ratio", 0.5)?);
    single(move |a| {
        let input = a.get(0)?;
        if !a.training {
            return Ok(input.shallow_clone());
        }
        let ratio = match a.optional(1) {
            Some(ratio) if !from_attribute => ratio.f_double_value(&[])?,
            _ => fixed,
        };
        Ok(input.f_dropout(ratio, true)?)
    })
}
