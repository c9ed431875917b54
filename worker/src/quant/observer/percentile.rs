//! Method `percentile`: the left edge of the bin in which the percentile of |x| lies, as in
//! pytorch-quantization's `_compute_amax_percentile`.

use super::{Histogram, Settings};

pub(super) fn amax(histogram: &Histogram, settings: &Settings) -> f32 {
    if settings.percentile >= 100.0 {
        // All of it, whatever the shares add up to.
        return histogram.edges[histogram.counts.len()];
    }
    let total = histogram.counts.iter().sum::<u64>() as f64;
    let share = settings.percentile / 100.0;
    let mut sum = 0.0;
    // The sum of shares, not the share of a sum: numpy's rounding is the reference's.
    let bin = histogram.counts.iter().position(|&count| {
        sum += count as f64 / total;
        sum >= share
    });
    histogram.edges[bin.unwrap_or(histogram.counts.len())]
}
