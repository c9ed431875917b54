//! Fake quantization to floats of 8 or 4 bits: `s · round(clamp(x / s))`, straight through (Micikevicius et al. 2022,
//! <https://arxiv.org/abs/2209.05433>).

use tch::{Device, Kind, Tensor};

use super::FakeQuantize;
use super::conversion::{greatest, to_small_float};
use super::kernel::{Kernel, single};
use super::live_scale::gradient_factor;
use super::quantization::Grouping;
use crate::Result;
use crate::graph::DType;

impl FakeQuantize {
    /// What runs it with its constant scales.
    pub(super) fn float_kernel(self, device: Device, dtype: DType) -> Result<Kernel> {
        let (grouping, shape) = self.grouping();
        let scale = Tensor::f_from_slice(&self.scale)?.f_reshape(&shape)?.f_to_device(device)?;
        single(move |arguments| {
            let x = arguments.get(0)?;
            rounded(x, &grouping.spread(&scale, x)?, dtype)
        })
    }

    /// As [`FakeQuantize::learned_kernel`]: the gradient of a scale is `round(v/s) − v/s` inside of the range, its end outside.
    pub(super) fn learned_float_kernel(self, dtype: DType, weight: bool) -> Result<Kernel> {
        let ((grouping, shape), count) = (self.grouping(), self.scale.len());
        let positive = greatest(dtype).unwrap_or(1.0);
        single(move |arguments| {
            let (x, scale) = (arguments.get(0)?, arguments.get(1)?);
            let scale = scale.f_reshape(&shape)?;
            let factor = gradient_factor(x, count, positive, weight);
            // The scale itself, with a part of its gradient.
            let constant = scale.f_detach()?;
            let scale = constant.f_add(&scale.f_sub(&constant)?.f_mul_scalar(factor)?)?;
            rounded(x, &grouping.spread(&scale, x)?, dtype)
        })
    }

    /// As [`FakeQuantize::followed_kernel`].
    pub(super) fn followed_float_kernel(self, dtype: DType) -> Result<Kernel> {
        single(move |arguments| {
            let (x, scale) = (arguments.get(0)?, arguments.get(1)?);
            rounded(x, &scale.f_detach()?.f_reshape([0_i64; 0])?, dtype)
        })
    }

    /// Which elements share a scale, and the shape of the scales.
    fn grouping(&self) -> (Grouping, Vec<i64>) {
        match &self.blocks {
            Some((length, shape)) => (Grouping::new(self.axis, *length), shape.clone()),
            None => (Grouping::new(self.axis, 0), vec![self.scale.len() as i64]),
        }
    }
}

/// Both gradients flow as if nothing were rounded; none to what is clipped.
fn rounded(x: &Tensor, scale: &Tensor, dtype: DType) -> Result<Tensor> {
    let greatest = greatest(dtype).unwrap_or(1.0);
    let inside = x.f_div(scale)?.f_clamp(-greatest, greatest)?;
    let constant = inside.f_detach()?;
    let nearest = to_small_float(&constant, dtype, true)?.f_to_kind(Kind::Float)?;
    // The difference is 0: the sum has the value of the first and the gradient of the second.
    let straight = nearest.f_add(&inside.f_sub(&constant)?)?;
    Ok(straight.f_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Node, TensorData};
    use crate::ops::Arguments;

    fn fake(scale: &TensorData, block_size: i64) -> FakeQuantize {
        let node = Node::new("q", "QuantizeLinear", &["x", "s", "z"], &["y"])
            .with("axis", Attribute::Int(0))
            .with("block_size", Attribute::Int(block_size));
        let bytes = vec![0; scale.len()];
        let zero =
            TensorData { dtype: DType::F8E4M3FN, shape: scale.shape.clone(), bytes: bytes.into() };
        FakeQuantize::of(&node, scale, Some(&zero)).unwrap().expect("one step")
    }

    fn run(kernel: &Kernel, x: &Tensor, scale: Option<&Tensor>) -> Tensor {
        kernel(&Arguments::of(&[Some(x), scale])).unwrap().remove(0)
    }

    #[test]
    fn values_are_those_of_the_type_and_gradients_pass_inside_of_its_range() {
        let x = Tensor::from_slice(&[-1000.0_f32, -2.125, 0.3, 896.0, 897.0]);
        let x = x.set_requires_grad(true);
        let kernel = fake(&TensorData::f32(&[], &[2.0]), 0).kernel(Device::Cpu).unwrap();
        let y = run(&kernel, &x, None);
        // 2.125 / 2 is the tie between 1 and 1.125; 0.15 is nearest to 0.15625.
        assert_eq!(y, Tensor::from_slice(&[-896.0_f32, -2.0, 0.3125, 896.0, 896.0]));
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad(), Tensor::from_slice(&[0.0_f32, 1.0, 1.0, 1.0, 0.0]));
    }

    #[test]
    fn scales_of_channels_and_blocks_are_their_own() {
        let x = Tensor::from_slice(&[1.1_f32, 2.2, 3.3, 4.4, 5.5, 6.6]).reshape([3, 2]);
        let alone = |value: f64, scale: f64| {
            let one = TensorData::f32(&[], &[scale as f32]);
            let x = Tensor::from_slice(&[value as f32]);
            run(&fake(&one, 0).kernel(Device::Cpu).unwrap(), &x, None).double_value(&[0])
        };
        for (scale, size, of) in [
            (TensorData::f32(&[3], &[0.1, 0.2, 0.3]), 0, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]),
            (TensorData::f32(&[2, 2], &[0.1, 0.2, 0.3, 0.4]), 2, [0.1, 0.2, 0.1, 0.2, 0.3, 0.4]),
        ] {
            let y = run(&fake(&scale, size).kernel(Device::Cpu).unwrap(), &x, None);
            let expected: Vec<f64> =
                (0..6).map(|i| alone(x.double_value(&[i / 2, i % 2]), of[i as usize])).collect();
            let found: Vec<f64> = (0..6).map(|i| y.double_value(&[i / 2, i % 2])).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn learned_scales_have_lsqs_gradient() {
        let x = Tensor::from_slice(&[1.1_f32, -2000.0]).set_requires_grad(true);
        let scale = Tensor::from_slice(&[2.0_f32]).set_requires_grad(true);
        let fake = fake(&TensorData::f32(&[1], &[2.0]), 0);
        assert_eq!(fake.levels(), Some(448.0));
        let y = run(&fake.learned_kernel(Device::Cpu, true).unwrap(), &x, Some(&scale));
        y.sum(Kind::Float).backward();
        // 0.55 rounds to 0.5625.
        let expected = (0.5625 - 0.55 - 448.0) / (2.0_f64 * 448.0).sqrt();
        assert!((scale.grad().double_value(&[0]) - expected).abs() < 1e-4 * expected.abs());
        assert_eq!(x.grad(), Tensor::from_slice(&[1.0_f32, 0.0]));
    }
}
