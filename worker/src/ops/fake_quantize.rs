//! A quantization followed by a dequantization with the same constants is one step, with the straight-through gradient
//! inside the range (Jacob et al. 2018, <https://arxiv.org/abs/1712.05877>).

use tch::{Device, Tensor};

use super::kernel::{Kernel, axis_from_front, ints, single};
use super::quantization::{output_dtype, range};
use crate::graph::{DType, Node, TensorData};
use crate::{Error, Result, torch};

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
        if scale.dtype != DType::F32 || scale.is_empty() {
            return Ok(None);
        }
        // Blocks, and a division in another precision, are not libtorch's.
        if node.int("block_size", 0)? != 0 || node.int("precision", 0)? != 0 {
            return Ok(None);
        }
        // Nor is an output of another type than the scale's.
        let output = node.int("output_dtype", 0)?;
        if node.op_type == "DequantizeLinear"
            && ![0, i64::from(DType::F32.onnx())].contains(&output)
        {
            return Ok(None);
        }
        let scale = scale.to_f32()?;
        let dtype = output_dtype(node, zero_point.map(|zero| zero.dtype))?;
        let Some(range) = range(dtype) else { return Ok(None) };
        let zero_point = match zero_point {
            None => vec![0; scale.len()],
            Some(zero) => zero_points(zero)?,
        };
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

/// Zero points of any quantized type of integers.
fn zero_points(zero: &TensorData) -> Result<Vec<i32>> {
    let values = ints(&torch::to_tensor(zero, Device::Cpu)?)?;
    // No quantized type has more than 16 bits.
    Ok(values.into_iter().map(|value| value as i32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Arguments;

    #[test]
    fn integers_of_4_bits_end_where_their_range_does() {
        let node = Node::new("q", "QuantizeLinear", &["x", "s", "z"], &["y"]);
        let scale = TensorData::f32(&[], &[0.5]);
        // The zero point is -1, in the lower half of a byte.
        let zero_point = TensorData { dtype: DType::I4, shape: vec![], bytes: vec![0x0F].into() };
        let fake = FakeQuantize::of(&node, &scale, Some(&zero_point)).unwrap().unwrap();
        let x = Tensor::from_slice(&[-9.0_f32, 0.3, 9.0]).set_requires_grad(true);
        let kernel = fake.kernel(Device::Cpu).unwrap();
        let y = kernel(&Arguments::of(&[Some(&x)])).unwrap().remove(0);
        assert_eq!(y, Tensor::from_slice(&[-3.5_f32, 0.5, 4.0]));
        y.sum(tch::Kind::Float).backward();
        assert_eq!(x.grad(), Tensor::from_slice(&[0.0_f32, 1.0, 0.0]));
    }

    #[test]
    fn what_is_not_libtorchs_is_not_fused() {
        let scale = TensorData::f32(&[2], &[0.5, 0.25]);
        let node = |name, value| {
            Node::new("q", "DequantizeLinear", &["x", "s"], &["y"])
                .with(name, crate::graph::Attribute::Int(value))
        };
        let fused = |node: &Node| FakeQuantize::of(node, &scale, None).unwrap().is_some();
        assert!(fused(&node("axis", 0)));
        assert!(!fused(&node("block_size", 2)));
        let half = i64::from(DType::F16.onnx());
        let zero_point = TensorData { dtype: DType::I8, shape: vec![2], bytes: vec![0, 0].into() };
        let node = node("output_dtype", half);
        assert!(FakeQuantize::of(&node, &scale, Some(&zero_point)).unwrap().is_none());
    }
}
