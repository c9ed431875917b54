//! How a histogram grows over the batches of a tensor.

use super::count::{NotFinite, abs_max, count};
use super::histogram::Histogram;

/// Collects a tensor's batches.
pub trait Collector: Send {
    /// Takes a batch's values.
    ///
    /// # Errors
    /// The first value that is no finite number.
    fn add(&mut self, values: &[f32]) -> Result<(), NotFinite>;

    /// What has been collected.
    fn finish(self: Box<Self>) -> Histogram;
}

/// Second pass of mode `exact`: bins are fixed by the largest |x| of the first pass, so neither
/// the size of batches nor their order matters.
pub struct Exact(Histogram);

impl Exact {
    /// Collects into `bins` bins up to `abs_max`.
    pub fn new(abs_max: f32, bins: usize) -> Self {
        Self(Histogram::spanning(abs_max, bins))
    }
}

impl Collector for Exact {
    fn add(&mut self, values: &[f32]) -> Result<(), NotFinite> {
        if !self.0.is_zero() {
            count(values, self.0.end(), &mut self.0.counts);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Histogram {
        self.0
    }
}

/// Mode `pytorch-quantization`: the width of bins is fixed by the first batch that is not all
/// zeros; bins are appended as the range grows (`HistogramCalibrator.collect` of that tool).
pub struct Growing {
    histogram: Histogram,
    bins: usize,
    /// Zeros that came before there were bins.
    zeros: u64,
}

impl Growing {
    /// Starts with `bins` bins.
    pub fn new(bins: usize) -> Self {
        Self { histogram: Histogram::default(), bins, zeros: 0 }
    }

    fn grow(&mut self, abs_max: f32) {
        let histogram = &mut self.histogram;
        histogram.abs_max = histogram.abs_max.max(abs_max);
        if histogram.is_zero() {
            *histogram = Histogram::spanning(abs_max, self.bins);
            histogram.counts[0] = self.zeros;
        } else if abs_max > histogram.end() {
            let width = histogram.width();
            let bins = (abs_max / width).ceil() as usize;
            histogram.counts.resize(bins, 0);
            histogram.edges = (0..=bins).map(|i| (i as f64 * f64::from(width)) as f32).collect();
        }
    }
}

impl Collector for Growing {
    fn add(&mut self, values: &[f32]) -> Result<(), NotFinite> {
        let abs_max = abs_max(values)?;
        if abs_max == 0.0 && self.histogram.is_zero() {
            self.zeros += values.len() as u64;
            return Ok(());
        }
        self.grow(abs_max);
        count(values, self.histogram.end(), &mut self.histogram.counts);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Histogram {
        self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_appended_at_the_first_batchs_width() {
        let mut growing = Box::new(Growing::new(256));
        growing.add(&[0.0, 0.0]).unwrap();
        growing.add(&[0.5, 1.0]).unwrap();
        growing.add(&[2.0, 0.25]).unwrap();
        let histogram = growing.finish();
        assert_eq!((histogram.counts.len(), histogram.end(), histogram.abs_max), (512, 2.0, 2.0));
        let filled: Vec<(usize, u64)> = histogram.counts.iter().copied().enumerate().collect();
        let filled: Vec<_> = filled.into_iter().filter(|bin| bin.1 > 0).collect();
        assert_eq!(filled, [(0, 2), (64, 1), (128, 1), (255, 1), (511, 1)]);
    }

    #[test]
    fn only_zeros_make_no_bins() {
        let mut growing = Box::new(Growing::new(256));
        growing.add(&[0.0; 5]).unwrap();
        assert!(growing.finish().is_zero());
        let mut exact = Box::new(Exact::new(0.0, 256));
        exact.add(&[0.0; 5]).unwrap();
        assert!(exact.finish().is_zero());
    }
}
