//! `Concat`: tensors one behind the other along `axis`. <https://onnx.ai/onnx/operators/onnx__Concat.html>
//!
//! Opsets: 1 (`axis` is 1 where it is left out), 4 (it must be there), 11 (negative axis), 13 (bfloat16).

use tch::Tensor;

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Concat", &[1, 4, 11, 13], |prepare| {
    if prepare.opset >= 4 && !prepare.node.attributes.contains_key("axis") {
        return Err(Error::user("attribute `axis` is missing"));
    }
    let axis = prepare.node.int("axis", 1)?;
    single(move |a| {
        let tensors: Vec<&Tensor> = a.tensors.iter().flatten().copied().collect();
        Ok(Tensor::f_cat(&tensors, axis)?)
    })
})
.shapes(rules::concat);
