//! `ArgMax`: where the greatest element along an axis is.
//! <https://onnx.ai/onnx/operators/onnx__ArgMax.html>
//!
//! Opsets: 1, 11 (negative axes), 12 (`select_last_index`), 13.

use tch::Tensor;

use crate::ops::extremum;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op = Op::new("ArgMax", &[1, 11, 12, 13], |prepare| {
    extremum::index(prepare, |x, axis, keep| Ok(Tensor::f_argmax(x, axis, keep)?))
})
.without_gradient()
.shapes(rules::arg);
