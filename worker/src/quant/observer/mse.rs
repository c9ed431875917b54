//! Method `mse`: the least mean squared quantization error, each bin's mass taken at its centre.
//!
//! Candidates are the centres of bins 128 and up, as in pytorch-quantization. With centres
//! `c = (b + ½) w` and candidate `a = (i + ½) w` the quotient `c / scale` is
//! `127 (2b + 1) / (2i + 1)`, so the bins of each quantized level follow in whole numbers (and none
//! lies exactly between two levels). Cumulative sums of `h`, `h c`, `h c²` then make a candidate
//! cost 127 levels and not all bins.

use super::{Histogram, Settings};

/// First candidate.
const FIRST: usize = 128;
/// Greatest level of int8.
const LEVELS: usize = 127;

pub(super) fn amax(histogram: &Histogram, _: &Settings) -> f32 {
    let sums = Sums::of(&histogram.counts);
    let candidates = (FIRST..histogram.counts.len()).map(|i| (i, sums.error(i)));
    // The first of equals wins.
    match candidates.min_by(|a, b| a.1.total_cmp(&b.1)) {
        Some((i, _)) => f32::midpoint(histogram.edges[i], histogram.edges[i + 1]),
        None => histogram.abs_max,
    }
}

/// Cumulative sums, with centres in bin widths: entry `b` is over the bins before `b`.
struct Sums {
    count: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Sums {
    fn of(counts: &[u64]) -> Self {
        let mut sums = Self { count: vec![0.0], first: vec![0.0], second: vec![0.0] };
        let (mut count, mut first, mut second) = (0.0, 0.0, 0.0);
        for (bin, &h) in counts.iter().enumerate() {
            let (h, centre) = (h as f64, bin as f64 + 0.5);
            count += h;
            first += h * centre;
            second += h * centre * centre;
            sums.count.push(count);
            sums.first.push(first);
            sums.second.push(second);
        }
        sums
    }

    /// Σ h (fake_quant(c) − c)² in squared bin widths for amax at the centre of bin `i`.
    fn error(&self, i: usize) -> f64 {
        let bins = self.count.len() - 1;
        let width = 2 * i + 1;
        let scale = width as f64 / 2.0 / LEVELS as f64;
        // The first bin whose level is at least `level`.
        let begins = |level: usize| {
            let numerator = (2 * level - 1) * width;
            numerator.saturating_sub(2 * LEVELS).div_ceil(4 * LEVELS).min(bins)
        };
        let mut error = 0.0;
        let mut start = 0;
        for level in 0..=LEVELS {
            let end = if level == LEVELS { bins } else { begins(level + 1) };
            let value = level as f64 * scale;
            let of = |sums: &[f64]| sums[end] - sums[start];
            error +=
                of(&self.second) - 2.0 * value * of(&self.first) + value * value * of(&self.count);
            start = end;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_sums_give_the_error_of_the_definition() {
        let mut state = 9_u32;
        let counts: Vec<u64> = (0..600)
            .map(|bin| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                u64::from((state >> 16) % 1000) * (600 - bin) / 600
            })
            .collect();
        let sums = Sums::of(&counts);
        for i in FIRST..counts.len() {
            let scale = (i as f64 + 0.5) / LEVELS as f64;
            let slow: f64 = counts
                .iter()
                .enumerate()
                .map(|(bin, &h)| {
                    let centre = bin as f64 + 0.5;
                    let level = (centre / scale).round_ties_even().min(LEVELS as f64);
                    h as f64 * (level * scale - centre).powi(2)
                })
                .sum();
            let fast = sums.error(i);
            assert!((fast - slow).abs() < 1e-9 * slow, "{i}: {fast} against {slow}");
        }
    }
}
