//! Figures of a series of times.

use serde::{Deserialize, Serialize};

/// Latencies of a series, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub min: f64,
    pub mean: f64,
    pub median: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Latency {
    /// The figures of a series in milliseconds, of at least one value.
    pub fn of(series: &[f64]) -> Self {
        let mut sorted = series.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part| percentile(&sorted, part);
        let mean = sorted.iter().sum::<f64>() / sorted.len().max(1) as f64;
        Self { min: at(0.0), mean, median: at(50.0), p90: at(90.0), p95: at(95.0), p99: at(99.0) }
    }
}

/// Percentile of an ascending series, linear between its values as NumPy's default; NaN of none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = percent.clamp(0.0, 100.0) / 100.0 * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.percentile([4, 1, 3, 2, 10], q)`.
    #[test]
    fn percentiles_are_those_of_numpy() {
        let latency = Latency::of(&[4.0, 1.0, 3.0, 2.0, 10.0]);
        assert_eq!((latency.min, latency.mean, latency.median), (1.0, 4.0, 3.0));
        assert!((latency.p90 - 7.6).abs() < 1e-12);
        assert!((latency.p95 - 8.8).abs() < 1e-12);
        assert!((latency.p99 - 9.76).abs() < 1e-12);
        assert_eq!(Latency::of(&[5.0]).p99, 5.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
