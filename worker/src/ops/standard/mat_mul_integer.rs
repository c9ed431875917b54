//! `MatMulInteger`: the product of matrices of 8-bit integers, in int32.
//! <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>
//!
//! Opsets: 10. Zero points for all, for each row of the first and each column of the second matrix.

use tch::Kind;

use crate::ops::integers::{Along, centred};
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("MatMulInteger", &[10], |_| {
    single(|a| {
        let left = centred(a.get(0)?, a.optional(2), Along::Rows)?;
        let right = centred(a.get(1)?, a.optional(3), Along::Columns)?;
        Ok(left.f_matmul(&right)?.f_to_kind(Kind::Int)?)
    })
})
.without_gradient()
.shapes(rules::matmul);
