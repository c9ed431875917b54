//! A quantization followed by a dequantization with the same constants is one step, with the straight-through gradient
//! inside the range (Jacob et al. 2018, <https://arxiv.org/abs/1712.05877>).

use tch::{Device, Kind, Tensor};

use super::conversion::greatest;
use super::kernel::{Kernel, axis_from_front, ints, single};
use super::quantization::{output_dtype, range};
use crate::graph::{DType, Node, TensorData};
use crate::{Error, Result, torch};

/// Constants of a quantization that is executed as fake quantization.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeQuantize {
    pub(super) scale: Vec<f32>,
    pub(super) zero_point: Vec<i32>,
    pub(super) axis: i64,
    /// Where each block of the axis has its own: its length, and the shape of the scales.
    pub(super) blocks: Option<(i64, Vec<i64>)>,
    pub(super) elements: Elements,
}

/// What values are rounded to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Elements {
    /// Integers from the least to the greatest.
    Integers(i64, i64),
    /// Floats of that type.
    Floats(DType),
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
        // A division in another precision is not libtorch's.
        let block_size = node.int("block_size", 0)?;
        if block_size < 0 || node.int("precision", 0)? != 0 {
            return Ok(None);
        }
        // Nor is an output of another type than the scale's.
        let output = node.int("output_dtype", 0)?;
        if node.op_type == "DequantizeLinear"
            && ![0, i64::from(DType::F32.onnx())].contains(&output)
        {
            return Ok(None);
        }
        if zero_point.is_some_and(|zero| block_size > 0 && zero.shape != scale.shape) {
            return Ok(None);
        }
        let shape = scale.shape.clone();
        let scale = scale.to_f32()?;
        let dtype = output_dtype(node, zero_point.map(|zero| zero.dtype))?;
        let elements = match (range(dtype), greatest(dtype)) {
            (Some((low, high)), _) => Elements::Integers(low, high),
            // What is beyond the greatest becomes no number.
            (None, Some(_)) if node.int("saturate", 1)? == 0 => return Ok(None),
            (None, Some(_)) => Elements::Floats(dtype),
            (None, None) => return Ok(None),
        };
        let zero_point = match zero_point {
            None => vec![0; scale.len()],
            Some(zero) => zero_points(zero)?,
        };
        // The standard allows no other of floats.
        if matches!(elements, Elements::Floats(_)) && zero_point.iter().any(|&zero| zero != 0) {
            return Ok(None);
        }
        if zero_point.len() != scale.len() {
            return Ok(None);
        }
        // Axis and blocks of a single scale say nothing.
        let single = scale.len() == 1;
        let axis = if single { 1 } else { node.int("axis", 1)? };
        let blocks = (block_size > 0 && !single).then_some((block_size, shape));
        if let Some(bad) = scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(
                Error::user(format!("scale {bad} is not a positive number")).at(node.place())
            );
        }
        Ok(Some(Self { scale, zero_point, axis, blocks, elements }))
    }

    /// What runs it.
    pub fn kernel(self, device: Device) -> Result<Kernel> {
        let (low, high) = match self.elements {
            Elements::Integers(low, high) => (low, high),
            Elements::Floats(dtype) => return self.float_kernel(device, dtype),
        };
        if let ([scale], [zero_point]) = (&self.scale[..], &self.zero_point[..]) {
            let (scale, zero_point) = (f64::from(*scale), i64::from(*zero_point));
            if torch::has_fused_fake_quantize(device) {
                let levels = (zero_point, low, high);
                return single(move |arguments| {
                    torch::fake_quantize(arguments.get(0)?, scale, levels)
                });
            }
            return single(move |arguments| {
                in_own_type(arguments.get(0)?, |x| {
                    Ok(x.f_fake_quantize_per_tensor_affine(scale, zero_point, low, high)?)
                })
            });
        }
        let scale = Tensor::f_from_slice(&self.scale)?.f_to_device(device)?;
        let zero_point = self.zero_points(device)?;
        let (axis, blocks) = (self.axis, self.blocks);
        single(move |arguments| {
            let rows = |x: &Tensor, axis| {
                Ok(x.f_fake_quantize_per_channel_affine(&scale, &zero_point, axis, low, high)?)
            };
            in_float(arguments.get(0)?, |x| {
                let axis = axis_from_front(axis, x.dim())?;
                match &blocks {
                    Some((length, shape)) => in_blocks(x, axis, *length, shape, |x| rows(x, 0)),
                    None => rows(x, axis),
                }
            })
        })
    }

    /// For libtorch, which asks those of channels that are integers for their least and greatest, and waits for the GPU's answer, each time; of
    /// one scale it takes integers only.
    pub(super) fn zero_points(&self, device: Device) -> Result<Tensor> {
        let zero_point = Tensor::f_from_slice(&self.zero_point)?.f_to_device(device)?;
        let asked = self.zero_point.len() > 1 && self.zero_point.iter().all(|&zero| zero == 0);
        Ok(if asked { zero_point.f_to_kind(Kind::Float)? } else { zero_point })
    }
}

/// Applies `run` to a tensor as it is, where libtorch has it for this type: on CPUs it takes no floats of 16 bits.
fn in_own_type(x: &Tensor, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if x.device() == Device::Cpu { in_float(x, run) } else { run(x) }
}

/// Applies `run` to floats of 16 bits as float32, and gives back what they were.
pub(super) fn in_float(x: &Tensor, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.kind() {
        kind @ (Kind::Half | Kind::BFloat16) => {
            Ok(run(&x.f_to_kind(Kind::Float)?)?.f_to_kind(kind)?)
        }
        _ => run(x),
    }
}

/// Applies `run` to a tensor whose rows are the blocks of `length` elements along an axis, in the order of their scales of shape
/// `scales`; the last block of an axis is filled up with zeros meanwhile.
pub(super) fn in_blocks(
    x: &Tensor,
    axis: i64,
    length: i64,
    scales: &[i64],
    run: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let size = x.size();
    let place = axis as usize;
    let extent = size.get(place).copied().unwrap_or(1);
    let length = length.min(extent.max(1));
    let count = extent / length + i64::from(extent % length != 0);
    let mut expected = size.clone();
    expected.iter_mut().skip(place).take(1).for_each(|extent| *extent = count);
    if scales != expected {
        return Err(Error::user(format!(
            "scale or zero point of shape {scales:?}, expected {expected:?} for blocks of {length}"
        )));
    }
    // The axis comes last, so that the padding of the last axis and the blocks' rows are plain.
    let last = x.f_movedim_int(axis, -1)?.f_constant_pad_nd([0, count * length - extent])?;
    let mut blocked = last.size();
    blocked.truncate(size.len() - 1);
    blocked.extend([count, length]);
    // `[…, blocks, length]`, then the blocks where the axis was: rows follow the scales.
    let rows = last.f_reshape(&blocked)?.f_movedim_int(-2, axis)?;
    let moved = rows.size();
    let made = run(&rows.f_reshape([-1, length])?)?.f_reshape(moved)?;
    let whole = made.f_movedim_int(axis, -2)?.f_flatten(-2, -1)?;
    Ok(whole.f_narrow(-1, 0, extent)?.f_movedim_int(-1, axis)?)
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
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad(), Tensor::from_slice(&[0.0_f32, 1.0, 0.0]));
    }

    #[test]
    fn a_reduced_range_ends_where_its_integers_do() {
        let node = Node::new("q", "QuantizeLinear", &["x", "s", "z"], &["y"]);
        let scale = TensorData::f32(&[2], &[0.5, 1.0]);
        let zero = TensorData { dtype: DType::I7, shape: vec![2], bytes: vec![0, 0].into() };
        let fake = FakeQuantize::of(&node, &scale, Some(&zero)).unwrap().unwrap();
        let x = Tensor::from_slice(&[-90.0_f32, 0.3, 90.0]).view([3, 1]).repeat([1, 2]);
        let y = fake.kernel(Device::Cpu).unwrap()(&Arguments::of(&[Some(&x)])).unwrap().remove(0);
        let expected = [-32.0_f32, -64.0, 0.5, 0.0, 31.5, 63.0];
        assert_eq!(y, Tensor::from_slice(&expected).view([3, 2]));
    }

    /// The pair as one step gives what its two operators give, and the gradient of 1 inside the range.
    #[test]
    fn blocks_are_trained_straight_through() {
        for (axis, shape, blocks) in
            [(0, [5, 3], [3, 3]), (1, [3, 5], [3, 3]), (-1, [2, 4], [2, 2])]
        {
            let pair = |op: &str, from: &str, to: &str| {
                Node::new(op, op, &[from, "s", "z"], &[to])
                    .with("block_size", crate::graph::Attribute::Int(2))
                    .with("axis", crate::graph::Attribute::Int(axis))
            };
            let count = blocks.iter().product::<i64>() as usize;
            let scales: Vec<f32> = (0..count).map(|index| 0.01 * (index + 1) as f32).collect();
            let scale = TensorData::f32(&blocks, &scales);
            let zeros = (0..count).map(|index| index as u8).collect::<Vec<_>>().into();
            let zero = TensorData { dtype: DType::I8, shape: blocks.to_vec(), bytes: zeros };
            let quantize = pair("QuantizeLinear", "x", "q");
            let fake = FakeQuantize::of(&quantize, &scale, Some(&zero)).unwrap().unwrap();
            let x = Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu));
            let x = (x * 0.9).sin().reshape(shape) * 6.0;
            let tensors = [&scale, &zero].map(|data| torch::to_tensor(data, Device::Cpu).unwrap());
            let apart = |node: &Node, x: &Tensor| {
                let op = crate::ops::find(&node.op_type, 21).unwrap();
                let types = vec![None, Some(DType::F32), Some(DType::I8)];
                let constants = vec![None, Some(&scale), Some(&zero)];
                let (opset, device) = (21, Device::Cpu);
                let prepare = crate::ops::Prepare { node, opset, device, constants, types };
                let inputs = [Some(x), Some(&tensors[0]), Some(&tensors[1])];
                (op.prepare)(&prepare).unwrap()(&Arguments::of(&inputs)).unwrap().remove(0)
            };
            let expected = apart(&pair("DequantizeLinear", "q", "y"), &apart(&quantize, &x));
            let x = x.set_requires_grad(true);
            let y =
                fake.kernel(Device::Cpu).unwrap()(&Arguments::of(&[Some(&x)])).unwrap().remove(0);
            assert!((&y - &expected).abs().max().double_value(&[]) < 1e-5, "axis {axis}");
            y.sum(Kind::Float).backward();
            // What is cut at an end of the range is off by more than half a step.
            let step = torch::to_tensor(&scale, Device::Cpu).unwrap();
            let place = axis_from_front(axis, 2).unwrap();
            let step = step.repeat_interleave_self_int(2, place, None);
            let step = step.narrow(place, 0, shape[place as usize]);
            let inside = (x.detach() - expected).abs().le_tensor(&(step * 0.5 + 1e-5));
            let some = inside.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!(0.0 < some && some < 1.0, "{some} of all are inside the range");
            assert_eq!(x.grad(), inside.to_kind(Kind::Float));
        }
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
        assert!(!fused(&node("precision", 1)));
        let half = i64::from(DType::F16.onnx());
        let zero_point = TensorData { dtype: DType::I8, shape: vec![2], bytes: vec![0, 0].into() };
        let node = node("output_dtype", half);
        assert!(FakeQuantize::of(&node, &scale, Some(&zero_point)).unwrap().is_none());
    }
}
