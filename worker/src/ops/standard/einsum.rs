//! `Einsum`: sums of products, after Einstein's convention. <https://onnx.ai/onnx/operators/onnx__Einsum.html>
//!
//! Opsets: 12.

use tch::Tensor;

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Einsum", &[12], |prepare| {
    let equation = prepare.node.text("equation", "")?.to_owned();
    if equation.is_empty() {
        return Err(Error::user("attribute `equation` is missing"));
    }
    single(move |a| {
        let tensors: Vec<&Tensor> = a.tensors.iter().flatten().copied().collect();
        Ok(Tensor::f_einsum(&equation, &tensors, None::<i64>)?)
    })
})
.shapes(rules::einsum);
