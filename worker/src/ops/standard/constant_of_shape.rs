//! `ConstantOfShape`: a tensor of a shape that is computed, filled with `value`.
//! <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>
//!
//! Opsets: 9, 20 to 25 (types).

use crate::graph::TensorData;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;
use crate::{Error, torch};

pub const OP: Op = Op::new("ConstantOfShape", &[9, 20, 21, 23, 24, 25], |prepare| {
    let value = prepare.node.tensor("value")?.cloned();
    let value = value.unwrap_or_else(|| TensorData::f32(&[1], &[0.0]));
    let value = torch::to_tensor(&value, prepare.device)?.f_reshape([0_i64; 0])?;
    single(move |a| {
        let shape = a.ints(0)?.ok_or_else(|| Error::user("input `shape` is missing"))?;
        Ok(value.f_expand(shape, false)?.f_contiguous()?)
    })
})
.without_gradient()
.shapes(rules::constant_of_shape);
