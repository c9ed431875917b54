//! `Div`: a / b, element by element, with broadcasting; integers are divided towards zero.
//! <https://onnx.ai/onnx/operators/onnx__Div.html>
//!
//! Opsets: 1 and 6 (broadcasting at an `axis` and where asked for), 7 (as NumPy), 13 (bfloat16), 14 (small integers).

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;
use crate::torch::is_float;

pub const OP: Op = Op::new("Div", &[1, 6, 7, 13, 14], |p| {
    binary(p, |a, b| if is_float(a) { a.f_div(b) } else { a.f_div_tensor_mode(b, "trunc") })
})
.shapes(rules::divide);
