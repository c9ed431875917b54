//! `Relu`: max(x, 0). <https://onnx.ai/onnx/operators/onnx__Relu.html>
//!
//! Opsets: 1 (with a hint about memory, which is ignored), 6, 13 (bfloat16), 14 (integers).

use tch::Tensor;

use crate::Result;
use crate::ops::kernel::{Arguments, Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Relu", &[1, 6, 13, 14], |_| single(relu)).shapes(rules::same_as_first);

fn relu(a: &Arguments) -> Result<Tensor> {
    Ok(match a.spare(0) {
        Some(mut x) => x.f_relu_()?,
        None => a.get(0)?.f_relu()?,
    })
}
