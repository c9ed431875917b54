//! `IsInf`: whether x is infinite, and of the signs that are looked for. <https://onnx.ai/onnx/operators/onnx__IsInf.html>
//!
//! Opsets: 10, 20 (float 8, bfloat16).

use tch::Tensor;

use crate::ops::elementwise::unary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("IsInf", &[10, 20], |prepare| {
    let negative = prepare.node.int("detect_negative", 1)? != 0;
    let positive = prepare.node.int("detect_positive", 1)? != 0;
    unary(match (negative, positive) {
        (true, true) => Tensor::f_isinf,
        (true, false) => Tensor::f_isneginf,
        (false, true) => Tensor::f_isposinf,
        (false, false) => |x| x.f_isinf()?.f_zeros_like(),
    })
})
.without_gradient()
.shapes(rules::same_as_first);
