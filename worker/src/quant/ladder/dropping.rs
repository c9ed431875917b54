//! QDrop: quantization of activations that is left out at random, element by element (Wei et al. 2022, <https://arxiv.org/abs/2203.05740>).

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::{Result, torch};

/// Where activations stay float.
pub(super) struct Dropping {
    /// Of 65,536 elements, how many.
    share: u32,
    generator: ChaCha8Rng,
}

impl Dropping {
    /// Each element with a probability, 0…1. The same seed gives the same elements.
    pub fn new(probability: f64, seed: u64) -> Self {
        let share = (probability.clamp(0.0, 1.0) * f64::from(1 << 16)).round() as u32;
        Self { share, generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Whether anything is ever left out.
    pub fn is_on(&self) -> bool {
        self.share > 0
    }

    /// Where the quantization of a tensor of that shape is left out: truth values.
    ///
    /// # Errors
    /// libtorch's.
    pub fn next(&mut self, shape: &[i64]) -> Result<Tensor> {
        let count = shape.iter().product::<i64>().max(0) as usize;
        let mut random = vec![0_u8; 2 * count];
        self.generator.fill_bytes(&mut random);
        let pairs = random.chunks_exact(2);
        let chosen: Vec<u8> = pairs
            .map(|pair| u8::from(u32::from(u16::from_le_bytes([pair[0], pair[1]])) < self.share))
            .collect();
        let mask = Tensor::f_from_data_size(&chosen, shape, Kind::Bool)?;
        Ok(mask.f_to_device(torch::device())?)
    }

    /// Of two values the float one where quantization is left out.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn mix(&mut self, float: &Tensor, quantized: &Tensor) -> Result<Tensor> {
        Ok(float.f_where_self(&self.next(&quantized.size())?, quantized)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_elements_as_were_asked_for_stay_float() {
        let (float, quantized) = (Tensor::ones([100, 200], (Kind::Float, tch::Device::Cpu)), 0.0);
        let quantized = float.f_mul_scalar(quantized).unwrap();
        let share = |probability, seed| {
            let mixed = Dropping::new(probability, seed).mix(&float, &quantized).unwrap();
            mixed.mean(Kind::Float).double_value(&[])
        };
        assert_eq!((share(0.0, 1), share(1.0, 1)), (0.0, 1.0));
        assert!((share(0.25, 1) - 0.25).abs() < 0.01);
        assert_eq!(share(0.5, 2), share(0.5, 2));
        assert!(!Dropping::new(0.0, 1).is_on());
        let mut dropping = Dropping::new(0.5, 3);
        assert_ne!(dropping.next(&[64]).unwrap(), dropping.next(&[64]).unwrap());
    }
}
