//! `Dropout`: in training, some elements become 0 and the others 1 / (1 − `ratio`) times larger (Srivastava et al.
//! 2014). <https://onnx.ai/onnx/operators/onnx__Dropout.html>
//!
//! Opsets: 1 and 6 (`is_test`), 7, 10, 12 (ratio becomes an input; `training_mode`), 13, 22 (types). It drops where the
//! caller trains, whatever `is_test` and `training_mode` say. Refused: the output of its mask.

use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::{Error, Result};

pub const OP: Op =
    Op::new("Dropout", &[1, 6, 7, 10, 12, 13, 22], prepare).limits("the output of the mask");

fn prepare(prepare: &Prepare) -> Result<Kernel> {
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
