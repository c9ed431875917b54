//! A quantization followed by a dequantization with the same constants is one step, with the straight-through gradient
//! inside the range (Jacob et al. 2018, <https://arxiv.org/abs/1712.05877>).

use tch::{Device, Tensor};

use super::kernel::{Kernel, axis_from_front, single};
use super::quantization::{output_dtype, range};
use crate::graph::{DType, Node, TensorData};
use crate::{Error, Result};

/// Constants of a quantization that is executed as fake quantization.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeQuantize {
    scale: Vec<f32>,
    zero_point: Vec<i32>,
    axis: i64,
    range: (i64, i64),
}

impl FakeQuantize {
    /// From the constants of a QuantizeLinear or DequantizeLinear; `None` where it must be executed as it stands.
    pub fn of(
        node: &Node,
        scale: &TensorData,
        zero_point: Option<&TensorData>,
    ) -> Result<Option<Self>> {
        if scale.dtype != DType::F32 || node.int("block_size", 0)? != 0 || scale.is_empty() {
            return Ok(None);
        }
        let scale = scale.to_f32()?;
        let dtype = output_dtype(node, zero_point.map(|zero| zero.dtype))?;
        let zero_point = match (zero_point, dtype) {
            (None, _) => vec![0; scale.len()],
            (Some(zero), DType::I8) => zero.to_i8()?.into_iter().map(i32::from).collect(),
            (Some(zero), DType::U8) => zero.to_u8()?.into_iter().map(i32::from).collect(),
            _ => return Ok(None),
        };
        let Some(range) = range(dtype) else { return Ok(None) };
        if zero_point.len() != scale.len() {
            return Ok(None);
        }
        // The axis of a single scale says nothing.
        let axis = if scale.len() == 1 { 1 } else { node.int("axis", 1)? };
        if let Some(bad) = scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(
                Error::user(format!("scale {bad} is not a positive number")).at(node.place())
            );
        }
        Ok(Some(Self { scale, zero_point, axis, range }))
    }

    /// What runs it.
    pub fn kernel(self, device: Device) -> Result<Kernel> {
        let (low, high) = self.range;
        if let ([scale], [zero_point]) = (&self.scale[..], &self.zero_point[..]) {
            let (scale, zero_point) = (f64::from(*scale), i64::from(*zero_point));
            return single(move |arguments| {
                let x = arguments.get(0)?;
                Ok(x.f_fake_quantize_per_tensor_affine(scale, zero_point, low, high)?)
            });
        }
        let scale = Tensor::f_from_slice(&self.scale)?.f_to_device(device)?;
        let zero_point = Tensor::f_from_slice(&self.zero_point)?.f_to_device(device)?;
        let axis = self.axis;
        single(move |arguments| {
            let x = arguments.get(0)?;
            let axis = axis_from_front(axis, x.dim())?;
            Ok(x.f_fake_quantize_per_channel_affine(&scale, &zero_point, axis, low, high)?)
        })
    }
}
