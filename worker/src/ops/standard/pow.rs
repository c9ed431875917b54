//! `Pow`: aᵇ, element by element, with broadcasting; of the type of the base. <https://onnx.ai/onnx/operators/onnx__Pow.html>
//!
//! Opsets: 1 (broadcasting at an `axis` and where asked for), 7 (as NumPy), 12 (types may differ), 13, 15 (bfloat16).

use crate::ops::elementwise::binary;
use crate::ops::kernel::Op;
use crate::shapes::rules;

pub const OP: Op =
    Op::new("Pow", &[1, 7, 12, 13, 15], |p| binary(p, |a, b| a.f_pow(b)?.f_to_kind(a.kind())))
        .shapes(rules::broadcast);
