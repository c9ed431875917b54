//! `Shape`: a tensor's extents from axis `start` to before `end`, on the CPU. <https://onnx.ai/onnx/operators/onnx__Shape.html>
//!
//! Opsets: 1, 13, 15 (`start`, `end`), 19 to 25 (types).

use tch::Tensor;

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;

pub const OP: Op = Op::new("Shape", &[1, 13, 15, 19, 21, 23, 24, 25], |prepare| {
    let (start, end) = (prepare.node.int("start", 0)?, prepare.node.int("end", i64::MAX)?);
    single(move |a| {
        let size = a.get(0)?.size();
        let rank = size.len() as i64;
        let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
        let (start, end) = (clamp(start), clamp(end));
        Ok(Tensor::f_from_slice(&size[start..end.max(start)])?)
    })
})
.without_gradient()
.shapes(rules::shape);
