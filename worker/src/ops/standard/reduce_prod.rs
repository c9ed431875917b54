//! `ReduceProd`: the product along axes. <https://onnx.ai/onnx/operators/onnx__ReduceProd.html>
//!
//! Opsets: 1, 11 (negative axes), 13 (bfloat16), 18 (`axes` become an input).

use crate::ops::kernel::Op;
use crate::ops::reduction::{product, reduce};
use crate::shapes::rules;

pub const OP: Op = Op::new("ReduceProd", &[1, 11, 13, 18], |p| reduce(p, 18, product))
    .shapes(rules::reduce_product);
