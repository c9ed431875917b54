//! Method `entropy`: the threshold whose 128 steps lose least information (Migacz 2017, "8-bit
//! inference with TensorRT"), candidates and normalisation as in pytorch-quantization's
//! `_compute_amax_entropy` with stride 1.
//!
//! For candidate `i`, with `h` the counts (`h[0]` replaced by `h[1]`): `p` is `h[..i]` with the
//! mass of `h[i..]` added to its last bin; `q` gives every non-zero bin of a step the mean of the
//! step's non-zero bins. The divergence of the normalised two is
//!
//! `KL(p‖q) = (Σ p ln p − Σ p ln q) / P + ln (Q / P)`, with `P = Σ p`, `Q = Σ q`
//!
//! in which all sums over a step's bins are differences of cumulative sums: a candidate costs 128
//! steps and not `i` bins.

use super::{Histogram, Settings};

/// Steps of the quantized histogram, and bins of the first candidate.
const STEPS: usize = 128;

/// Divergences closer than this are a tie, which the last candidate wins.
const TIE: f64 = 1e-13;

pub(super) fn amax(histogram: &Histogram, _: &Settings) -> f32 {
    let mut counts = histogram.counts.clone();
    if counts.len() < STEPS {
        return histogram.abs_max;
    }
    counts[0] = counts[1];
    let sums = Sums::of(&counts);
    let mut best = (f64::INFINITY, counts.len());
    for i in STEPS..=counts.len() {
        let divergence = sums.divergence(&counts, i);
        if divergence <= best.0 + TIE {
            best = (divergence.min(best.0), i);
        }
    }
    histogram.edges[best.1]
}

/// Cumulative sums: entry `i` is over the bins before `i`.
struct Sums {
    count: Vec<u64>,
    filled: Vec<u32>,
    /// Of `h ln h`.
    information: Vec<f64>,
}

/// `x ln x`, 0 at 0.
fn information(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

impl Sums {
    fn of(counts: &[u64]) -> Self {
        let mut sums = Self { count: vec![0], filled: vec![0], information: vec![0.0] };
        let (mut count, mut filled, mut bits) = (0, 0, 0.0);
        for &bin in counts {
            count += bin;
            filled += u32::from(bin > 0);
            bits += information(bin as f64);
            sums.count.push(count);
            sums.filled.push(filled);
            sums.information.push(bits);
        }
        sums
    }

    fn divergence(&self, counts: &[u64], i: usize) -> f64 {
        let total = self.count[counts.len()];
        let tail = total - self.count[i];
        let last = counts[i - 1];
        if last == 0 && tail > 0 {
            // p has mass where q has none.
            return f64::INFINITY;
        }
        let (p_sum, q_sum) = (total as f64, self.count[i] as f64);
        if q_sum == 0.0 {
            return f64::INFINITY;
        }
        let own =
            self.information[i] - information(last as f64) + information((last + tail) as f64);
        let mut cross = 0.0;
        let mut start = 0;
        for step in 1..=STEPS {
            let end = (step * i).div_ceil(STEPS);
            let count = self.count[end] - self.count[start];
            if count > 0 {
                let filled = self.filled[end] - self.filled[start];
                let mean = count as f64 / f64::from(filled);
                let mass = if step == STEPS { count + tail } else { count };
                cross += mass as f64 * mean.ln();
            }
            start = end;
        }
        (own - cross) / p_sum + (q_sum / p_sum).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bin by bin.
    fn naive(counts: &[u64], i: usize) -> f64 {
        let step = |bin: usize| bin * STEPS / i;
        let (mut mass, mut filled) = ([0.0; STEPS], [0.0; STEPS]);
        for bin in (0..i).filter(|&bin| counts[bin] > 0) {
            mass[step(bin)] += counts[bin] as f64;
            filled[step(bin)] += 1.0;
        }
        let mean = |bin: usize| mass[step(bin)] / filled[step(bin)];
        let q: Vec<f64> = (0..i).map(|bin| if counts[bin] > 0 { mean(bin) } else { 0.0 }).collect();
        let mut p: Vec<f64> = counts[..i].iter().map(|&count| count as f64).collect();
        p[i - 1] += counts[i..].iter().sum::<u64>() as f64;
        let (p_sum, q_sum): (f64, f64) = (p.iter().sum(), q.iter().sum());
        let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
        terms.map(|(p, q)| p / p_sum * ((p / p_sum) / (q / q_sum)).ln()).sum()
    }

    #[test]
    fn cumulative_sums_give_the_divergence_of_the_definition() {
        let mut state = 5_u32;
        let counts: Vec<u64> = (0..700)
            .map(|bin| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Holes in the tail, so that the last bin is empty for some candidates.
                u64::from((state >> 16) % 1000) * (700 - bin) / 700 * u64::from(state >> 30 > 0)
            })
            .collect();
        let sums = Sums::of(&counts);
        let mut infinite = 0;
        for i in STEPS..=counts.len() {
            let (fast, slow) = (sums.divergence(&counts, i), naive(&counts, i));
            infinite += usize::from(slow.is_infinite());
            assert!(fast == slow || (fast - slow).abs() < 1e-10, "{i}: {fast} against {slow}");
        }
        assert!(infinite > 10);
    }
}
