//! Random numbers that follow from (seed, epoch, index), so that threads do not matter.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The generator of sample `index` in `epoch`.
pub(super) fn generator(seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    keyed(seed, epoch, index, 1)
}

/// The numbers below `count` in random order.
pub fn permutation(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut keyed(seed, epoch, 0, 2));
    order
}

fn keyed(seed: u64, epoch: u64, index: u64, purpose: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, value) in key.chunks_exact_mut(8).zip([seed, epoch, index, purpose]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A number in 0…1.
pub(super) fn unit(generator: &mut ChaCha8Rng) -> f64 {
    generator.random()
}

/// A whole number in 0…`last`.
pub(super) fn up_to(generator: &mut ChaCha8Rng, last: usize) -> usize {
    // Drawn as u64: `usize` draws differently on 32 bits.
    generator.random_range(0..=last as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_has_each_number_once_and_follows_from_seed_and_epoch() {
        let order = permutation(1000, 3, 1);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(order, permutation(1000, 3, 1));
        assert_ne!(order, permutation(1000, 3, 2));
        assert_ne!(order, permutation(1000, 4, 1));
    }
}
