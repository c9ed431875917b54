//! `MatMul`: the matrix product, as NumPy's. <https://onnx.ai/onnx/operators/onnx__MatMul.html>
//!
//! Opsets: 1, 9 (integers), 13 (bfloat16).

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op =
    Op::new("MatMul", &[1, 9, 13], |_| single(|a| Ok(a.get(0)?.f_matmul(a.get(1)?)?)))
        .shapes(rules::matmul);
