//! Start weights, drawn as PyTorch draws them (the distributions, not its numbers).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::graph::TensorData;

/// Draws start weights. Each tensor has a generator of its own, seeded by the seed and its name,
/// so that its values do not depend on which layers stand before it.
pub(super) struct Init {
    seed: u64,
}

impl Init {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn generator(&self, name: &str) -> ChaCha8Rng {
        let digest =
            Sha256::new().chain_update(self.seed.to_le_bytes()).chain_update(name).finalize();
        ChaCha8Rng::from_seed(digest.into())
    }

    /// Normal with mean 0.
    pub fn normal(&self, name: &str, shape: &[i64], std: f64) -> TensorData {
        let mut generator = self.generator(name);
        let count = shape.iter().product::<i64>() as usize;
        // Box and Muller 1958, both values of a pair used.
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt() * std;
            let (sine, cosine) = (std::f64::consts::TAU * generator.random::<f64>()).sin_cos();
            values.push((radius * cosine) as f32);
            values.push((radius * sine) as f32);
        }
        values.truncate(count);
        TensorData::f32(shape, &values)
    }

    /// Normal with variance 2 / `fan_out` (He et al. 2015), as torchvision's networks start.
    pub fn kaiming_normal(&self, name: &str, shape: &[i64], fan_out: i64) -> TensorData {
        self.normal(name, shape, (2.0 / fan_out as f64).sqrt())
    }

    /// Uniform in -`bound`…`bound`.
    pub fn uniform(&self, name: &str, shape: &[i64], bound: f64) -> TensorData {
        let mut generator = self.generator(name);
        let count = shape.iter().product::<i64>() as usize;
        let values: Vec<f32> =
            (0..count).map(|_| ((generator.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect();
        TensorData::f32(shape, &values)
    }
}
