//! `Dropout`: in training, some elements become 0 and the others 1 / (1 − `ratio`) times larger (Srivastava et al.
//! 2014, <https://jmlr.org/papers/v15/srivastava14a.html>). <https://onnx.ai/onnx/operators/onnx__Dropout.html>
//!
//! Opsets: 1 and 6 (`is_test`), 7, 10 (the mask is of truth values), 12 (ratio becomes an input; `training_mode`), 13, 22 (types).
//! It drops where the caller trains, and from opset 12 on where the node says so; `seed` is ignored.

use tch::{Kind, Tensor};

use crate::Result;
use crate::ops::kernel::{Kernel, Op, Prepare};
use crate::shapes::rules;

pub const OP: Op = Op::new("Dropout", &[1, 6, 7, 10, 12, 13, 22], prepare).shapes(rules::dropout);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let inputs = prepare.opset >= 12;
    let masks_are_bool = prepare.opset >= 10;
    let wants_mask = prepare.node.outputs.get(1).is_some_and(|name| !name.is_empty());
    let fixed = f64::from(prepare.node.float("ratio", 0.5)?);
    Ok(Box::new(move |a| {
        let x = a.get(0)?;
        let given = |index: usize| a.optional(index).filter(|_| inputs);
        let ratio = given(1).map_or(Ok(fixed), |ratio| ratio.f_double_value(&[]))?;
        let asked = given(2).map_or(Ok(0), |mode| mode.f_int64_value(&[]))? != 0;
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
