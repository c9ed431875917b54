//! `Mean` of any number of tensors, element by element, with broadcasting. <https://onnx.ai/onnx/operators/onnx__Mean.html>
//!
//! Opsets: 1 and 6 (shapes alike), 8 (broadcasting), 13 (bfloat16).

use tch::Tensor;

use crate::ops::elementwise::fold_all;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Mean", &[1, 6, 8, 13], |_| {
    single(|a| Ok(fold_all(a, Tensor::f_add)?.f_div_scalar(a.tensors.len() as f64)?))
})
.shapes(rules::broadcast);
