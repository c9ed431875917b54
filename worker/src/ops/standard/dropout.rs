//! `Dropout`: in training, some elements become 0 and the others 1 / (1 − `ratio`) times larger (Srivastava et al.
//! 2014, <https://jmlr.org/papers/v15/srivastava14a.html>). <https://onnx.ai/onnx/operators/onnx__Dropout.html>
//!
//! Opsets: 1 and 6 (`is_test`), 7, 10 (the mask is of truth values), 12 (ratio becomes an input; `training_mode`), 13, 22 (types).
//! It drops where the caller trains, and from opset 12 on where the node says so; `seed` is ignored.

use tch::{Kind, Tensor};

use crate::Result;
use crate::ops::kernel::{Few, Kernel, Op, Prepare};
use crate::shapes::rules;

pub const OP: Op = Op::new("Dropout", &[1, 6, 7, 10, 12, 13, 22], prepare).shapes(rules::dropout);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let inputs = prepare.opset >= 12;
    let masks_are_bool = prepare.opset >= 10;
    let wants_mask = prepare.node.outputs.get(1).is_some_and(|name| !name.is_empty());
    let fixed = f64::from(prepare.node.float("ratio", 0.5)?);
    let [ratio, mode] = [1, 2].map(|index| Few::new(prepare, index));
    Ok(Box::new(move |a| {
        let x = a.get(0)?;
        let given = |few: &Few| if inputs { few.first(a) } else { Ok(None) };
        let ratio = given(&ratio)?.unwrap_or(fixed);
        let asked = given(&mode)?.unwrap_or(0.0) != 0.0;
        let drops = ratio > 0.0 && (a.training || asked);
        if !wants_mask {
            return Ok(vec![if drops { x.f_dropout(ratio, true)? } else { x.shallow_clone() }]);
        }
        let (y, mask) = if drops {
            x.f_native_dropout(ratio, true)?
        } else {
            (x.shallow_clone(), Tensor::f_ones(x.size(), (Kind::Bool, x.device()))?)
        };
        Ok(vec![y, if masks_are_bool { mask } else { mask.f_to_kind(x.kind())? }])
    }))
}
