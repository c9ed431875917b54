//! Shapes as values: <https://onnx.ai/onnx/operators/onnx__Shape.html>,
//! <https://onnx.ai/onnx/operators/onnx__Expand.html>, <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>.
//!
//! Opsets: Shape 1, 13, 15 (`start`, `end`), 19 to 25; Expand 8, 13; ConstantOfShape 9, 20 to 25. Shapes stay on the CPU.

use tch::Tensor;

use super::kernel::{Op, single};
use crate::graph::TensorData;
use crate::{Error, torch};

/// `Shape`.
pub const SHAPE: Op = Op::new("Shape", &[1, 13, 15, 19, 21, 23, 24, 25], |prepare| {
    let (start, end) = (prepare.node.int("start", 0)?, prepare.node.int("end", i64::MAX)?);
    single(move |a| {
        let size = a.get(0)?.size();
        let rank = size.len() as i64;
        let clamp = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
        let (start, end) = (clamp(start), clamp(end));
        Ok(Tensor::f_from_slice(&size[start..end.max(start)])?)
    })
})
.without_gradient();

/// `Expand`: broadcasts both ways.
pub const EXPAND: Op = Op::new("Expand", &[8, 13], |_| {
    single(|a| {
        let input = a.get(0)?;
        let mut shape = a.ints(1)?.ok_or_else(|| Error::user("input `shape` is missing"))?;
        let size = input.size();
        let rank = shape.len().max(size.len());
        shape.splice(0..0, vec![1; rank - shape.len()]);
        for (extent, &own) in shape.iter_mut().rev().zip(size.iter().rev()) {
            if *extent == 1 {
                *extent = own;
            }
        }
        Ok(input.f_expand(shape, false)?)
    })
});

/// `ConstantOfShape`.
pub const CONSTANT_OF_SHAPE: Op = Op::new("ConstantOfShape", &[9, 20, 21, 23, 24, 25], |prepare| {
    let value = prepare.node.tensor("value")?.cloned();
    let value = value.unwrap_or_else(|| TensorData::f32(&[1], &[0.0]));
    let value = torch::to_tensor(&value, prepare.device)?.f_reshape([0_i64; 0])?;
    single(move |a| {
        let shape = a.ints(0)?.ok_or_else(|| Error::user("input `shape` is missing"))?;
        Ok(value.f_expand(shape, false)?.f_contiguous()?)
    })
})
.without_gradient();
