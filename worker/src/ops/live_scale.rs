//! Fake quantization whose scale is no constant but an input, so that training changes it: learned by its gradient (LSQ, Esser
//! et al. 2020, <https://arxiv.org/abs/1902.08153>), or set from outside between two steps.

use tch::{Device, Tensor};

use super::FakeQuantize;
use super::conversion::greatest;
use super::fake_quantize::{Elements, in_blocks, in_float};
use super::kernel::{Kernel, axis_from_front, single};
use crate::torch::LearnedScale;
use crate::{Result, torch};

impl FakeQuantize {
    /// What runs it with the scale, of the shape that it has in the model, as input 1; gradients flow to both inputs.
    ///
    /// That of the scale `s` at a value `v` is `round(v/s) − v/s` inside of the range and its end outside, times
    /// `1/√(N·Qp)`: `Qp` is the greatest number above the zero point, `N` the count of values that a scale is for. Of a `weight`
    /// those are all; of an activation those of one sample (axis 0 counts samples), so that the gradient, as any other,
    /// does not depend on how many samples a step has.
    pub fn learned_kernel(self, device: Device, weight: bool) -> Result<Kernel> {
        let (low, high) = match self.elements {
            Elements::Integers(low, high) => (low, high),
            Elements::Floats(dtype) => return self.learned_float_kernel(dtype, weight),
        };
        let zero_point = self.zero_points(device)?;
        let least = self.zero_point.iter().copied().min().unwrap_or(0);
        let positive = (high - i64::from(least)).max(1) as f64;
        let (count, axis, blocks) = (self.scale.len(), self.axis, self.blocks);
        // What all have, where a GPU takes it in few kernels.
        let shared =
            self.zero_point.first().filter(|first| self.zero_point.iter().all(|z| z == *first));
        let shared = shared.filter(|_| blocks.is_none() && torch::has_fused_fake_quantize(device));
        let shared = shared.map(|&zero| i64::from(zero));
        single(move |arguments| {
            let scale = arguments.get(1)?.f_reshape([-1])?;
            let x = arguments.get(0)?;
            if let Some(zero) = shared.filter(|_| x.dim() > 0) {
                let factor = gradient_factor(x, count, positive, weight);
                let axis = if count == 1 { None } else { Some(axis_from_front(axis, x.dim())?) };
                let (scale, zero_point, range) = (&scale, &zero_point, (low, high));
                let learned = LearnedScale { scale, zero_point, axis, range, factor };
                let run = |x: &Tensor| torch::fused_learned_fake_quantize(x, zero, &learned);
                return if count == 1 { run(x) } else { in_float(x, run) };
            }
            in_float(x, |x| {
                let factor = gradient_factor(x, count, positive, weight);
                let run = |x: &Tensor, axis| {
                    let (scale, zero_point, range) = (&scale, &zero_point, (low, high));
                    let learned = LearnedScale { scale, zero_point, axis, range, factor };
                    torch::learned_fake_quantize(x, &learned)
                };
                if count == 1 {
                    return run(x, None);
                }
                let axis = axis_from_front(axis, x.dim())?;
                match &blocks {
                    Some((length, shape)) => {
                        in_blocks(x, axis, *length, shape, |x| run(x, Some(0)))
                    }
                    None => run(x, Some(axis)),
                }
            })
        })
    }

    /// What runs it with its one scale as input 1, to which no gradient flows.
    pub fn followed_kernel(self, device: Device) -> Result<Kernel> {
        let (low, high) = match self.elements {
            Elements::Integers(low, high) => (low, high),
            Elements::Floats(dtype) => return self.followed_float_kernel(dtype),
        };
        let zero_point = self.zero_points(device)?;
        single(move |arguments| {
            let scale = arguments.get(1)?.f_reshape([-1])?;
            in_float(arguments.get(0)?, |x| {
                Ok(x.f_fake_quantize_per_tensor_affine_tensor_qparams(
                    &scale,
                    &zero_point,
                    low,
                    high,
                )?)
            })
        })
    }

    /// By what the largest magnitude of a tensor is to be divided to give its scale; `None` where it has several scales, or a range
    /// that neither begins at zero nor reaches as far below it as above.
    pub fn levels(&self) -> Option<f64> {
        let (&[_], &[zero]) = (&self.scale[..], &self.zero_point[..]) else { return None };
        let (low, high) = match self.elements {
            Elements::Integers(low, high) => (low, high),
            Elements::Floats(dtype) => return greatest(dtype),
        };
        let (above, below) = (high - i64::from(zero), i64::from(zero) - low);
        (above > 0 && (below == 0 || (above - below).abs() <= 1)).then_some(above as f64)
    }
}

/// `1/√(N·Qp)`, where `count` scales share the values of `x`.
pub(super) fn gradient_factor(x: &Tensor, count: usize, positive: f64, weight: bool) -> f64 {
    let samples =
        if weight { 1 } else { x.size().first().map_or(1, |&first| first.max(1) as usize) };
    let values = (x.numel() / samples / count).max(1) as f64;
    1.0 / (values * positive).sqrt()
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::graph::{DType, Node, TensorData};
    use crate::ops::Arguments;

    fn fake(scale: &TensorData, dtype: DType, zero_point: u8) -> FakeQuantize {
        let node = Node::new("q", "QuantizeLinear", &["x", "s", "z"], &["y"])
            .with("axis", crate::graph::Attribute::Int(0));
        let zeros = vec![zero_point; scale.len()];
        let zero = TensorData { dtype, shape: scale.shape.clone(), bytes: zeros.into() };
        FakeQuantize::of(&node, scale, Some(&zero)).unwrap().unwrap()
    }

    fn leaf(values: &[f32], shape: &[i64]) -> Tensor {
        Tensor::from_slice(values).reshape(shape).set_requires_grad(true)
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.contiguous().view(-1)).unwrap()
    }

    /// The gradients of the paper, computed apart: for each value that of its scale, summed over those of a scale.
    #[test]
    fn gradients_of_scales_are_those_of_lsq() {
        let values = [0.3_f32, -0.74, 40.0, -90.0, 0.05, 1.26, -3.3, 200.0];
        let upstream = [1.0_f32, -2.0, 0.5, 3.0, 1.5, -1.0, 2.0, 0.25];
        // Scales, type, zero point, shape of x, whether it is a weight.
        type Case = (&'static [f32], DType, u8, [i64; 2], bool);
        let cases: [Case; 5] = [
            (&[0.25], DType::I8, 0, [2, 4], false),
            (&[0.25], DType::I8, 0, [2, 4], true),
            (&[0.5], DType::U8, 0, [4, 2], false),
            (&[0.5], DType::U8, 128, [8, 1], false),
            (&[0.25, 0.5], DType::I8, 0, [2, 4], true),
        ];
        for (scales, dtype, zero, shape, weight) in cases {
            let per_channel = scales.len() > 1;
            let of = |index: usize| if per_channel { index * scales.len() / 8 } else { 0 };
            let data = TensorData::f32(&[scales.len() as i64], scales);
            let (low, high) = if dtype == DType::I8 { (-128.0, 127.0) } else { (0.0, 255.0) };
            let (low, high) = (low - f32::from(zero), high - f32::from(zero));
            let count = 8 / scales.len() / if weight { 1 } else { shape[0] as usize };
            let factor = 1.0 / (count as f32 * high).sqrt();
            let mut expected = vec![0.0_f32; scales.len()];
            let (mut outputs, mut inner) = (Vec::new(), Vec::new());
            for (index, (&value, &gradient)) in values.iter().zip(&upstream).enumerate() {
                let scale = scales[of(index)];
                let steps = value / scale;
                let rounded = steps.round_ties_even();
                let inside = low <= rounded && rounded <= high;
                outputs.push(rounded.clamp(low, high) * scale);
                inner.push(if inside { gradient } else { 0.0 });
                let own = if inside { rounded - steps } else { rounded.clamp(low, high) };
                expected[of(index)] += own * gradient * factor;
            }
            let (x, s) = (leaf(&values, &shape), leaf(scales, &[scales.len() as i64]));
            let kernel = fake(&data, dtype, zero).learned_kernel(Device::Cpu, weight).unwrap();
            let y = kernel(&Arguments::of(&[Some(&x), Some(&s)])).unwrap().remove(0);
            assert_eq!(floats(&y), outputs);
            (y * Tensor::from_slice(&upstream).reshape(shape)).sum(Kind::Float).backward();
            assert_eq!(floats(&x.grad()), inner);
            for (found, expected) in floats(&s.grad()).iter().zip(&expected) {
                let close = (found - expected).abs() < 1e-4 * expected.abs().max(1.0);
                assert!(close, "{scales:?} {dtype:?} {weight}: {found}, expected {expected}");
            }
        }
    }

    /// All three compute the same.
    #[test]
    fn a_live_scale_gives_the_bits_of_a_constant_one() {
        let x = Tensor::arange(4000, (Kind::Float, Device::Cpu)).reshape([2, 2000]) * 0.37 - 700.0;
        let scale = TensorData::f32(&[], &[0.731]);
        let s = torch::to_tensor(&scale, Device::Cpu).unwrap();
        for (dtype, zero) in [(DType::I8, 0), (DType::U8, 128), (DType::U8, 0)] {
            let fake = fake(&scale, dtype, zero);
            let [constant, learned, followed] = [
                fake.clone().kernel(Device::Cpu),
                fake.clone().learned_kernel(Device::Cpu, false),
                fake.followed_kernel(Device::Cpu),
            ]
            .map(|kernel| {
                kernel.unwrap()(&Arguments::of(&[Some(&x), Some(&s)])).unwrap().remove(0)
            });
            assert_eq!(constant, learned);
            assert_eq!(constant, followed);
        }
    }

    #[test]
    fn levels_are_known_of_ranges_around_or_above_zero() {
        let levels = |scales: &[f32], dtype, zero| {
            fake(&TensorData::f32(&[scales.len() as i64], scales), dtype, zero).levels()
        };
        assert_eq!(levels(&[0.5], DType::I8, 0), Some(127.0));
        assert_eq!(levels(&[0.5], DType::U8, 128), Some(127.0));
        assert_eq!(levels(&[0.5], DType::U8, 0), Some(255.0));
        assert_eq!(levels(&[0.5], DType::U8, 100), None);
        assert_eq!(levels(&[0.5, 0.25], DType::I8, 0), None);
    }
}
