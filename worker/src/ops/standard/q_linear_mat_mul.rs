//! `QLinearMatMul`: the product of quantized matrices, quantized.
//! <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>
//!
//! Opsets: 10, 21 (types of scales). 8-bit integers, per tensor, per row of the first and per column of the second.
//! Refused: float 8.

use crate::ops::integers::{Along, centred, saturated, spread};
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("QLinearMatMul", &[10, 21], |_| {
    single(|a| {
        let left = centred(a.get(0)?, a.optional(2), Along::Rows)?;
        let right = centred(a.get(3)?, a.optional(5), Along::Columns)?;
        let product = left.f_matmul(&right)?;
        let scale = spread(a.get(1)?, &product, Along::Rows)?;
        let scale = scale.f_mul(&spread(a.get(4)?, &product, Along::Columns)?)?;
        let scale = scale.f_div(&spread(a.get(6)?, &product, Along::Rows)?)?;
        saturated(&product.f_mul(&scale)?, a.get(7)?, Along::Rows)
    })
})
.without_gradient()
.limits("float 8")
.shapes(rules::qlinear_matmul);
