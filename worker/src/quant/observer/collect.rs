//! How what is known of a tensor grows over its batches.

use super::count::{Extent, NotFinite, count, extent};
use super::fine::Fine;
use super::histogram::Histogram;

/// What is known of a tensor after all batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Of |x|.
    pub histogram: Histogram,
    /// Least and greatest value, with their signs.
    pub extent: Extent,
}

/// Collects a tensor's batches.
pub trait Collector: Send {
    /// Takes a batch's values.
    ///
    /// # Errors
    /// The first value that is no finite number.
    fn add(&mut self, values: &[f32]) -> Result<(), NotFinite>;

    /// What has been collected.
    fn finish(self: Box<Self>) -> Observed;
}

/// Mode `exact`: one pass, and neither the size of batches nor their order matters ([`Fine`]).
pub struct Exact {
    fine: Fine,
    bins: usize,
}

impl Exact {
    /// Ends with `bins` bins.
    pub fn new(bins: usize) -> Self {
        Self { fine: Fine::new(bins), bins }
    }
}

impl Collector for Exact {
    fn add(&mut self, values: &[f32]) -> Result<(), NotFinite> {
        self.fine.add(values)
    }

    fn finish(self: Box<Self>) -> Observed {
        self.fine.observed(self.bins)
    }
}

/// Mode `pytorch-quantization`: the width of bins is fixed by the first batch that is not all
/// zeros; bins are appended as the range grows (`HistogramCalibrator.collect` of that tool).
pub struct Growing {
    histogram: Histogram,
    extent: Extent,
    bins: usize,
    /// Zeros that came before there were bins.
    zeros: u64,
}

impl Growing {
    /// Starts with `bins` bins.
    pub fn new(bins: usize) -> Self {
        Self { histogram: Histogram::default(), extent: Extent::NOTHING, bins, zeros: 0 }
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
        let batch = extent(values)?;
        self.extent = self.extent.with(batch);
        let abs_max = batch.abs_max();
        if abs_max == 0.0 && self.histogram.is_zero() {
            self.zeros += values.len() as u64;
            return Ok(());
        }
        self.grow(abs_max);
        count(values, self.histogram.end(), &mut self.histogram.counts);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Observed {
        Observed { histogram: self.histogram, extent: self.extent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_appended_at_the_first_batchs_width() {
        let mut growing = Box::new(Growing::new(256));
        growing.add(&[0.0, 0.0]).unwrap();
        growing.add(&[0.5, -1.0]).unwrap();
        growing.add(&[2.0, 0.25]).unwrap();
        let Observed { histogram, extent } = growing.finish();
        assert_eq!((extent.min(), extent.max()), (-1.0, 2.0));
        assert_eq!((histogram.counts.len(), histogram.end(), histogram.abs_max), (512, 2.0, 2.0));
        let filled: Vec<(usize, u64)> = histogram.counts.iter().copied().enumerate().collect();
        let filled: Vec<_> = filled.into_iter().filter(|bin| bin.1 > 0).collect();
        assert_eq!(filled, [(0, 2), (64, 1), (128, 1), (255, 1), (511, 1)]);
    }

    #[test]
    fn only_zeros_make_no_bins() {
        let collectors: [Box<dyn Collector>; 2] =
            [Box::new(Growing::new(256)), Box::new(Exact::new(256))];
        for mut collector in collectors {
            collector.add(&[0.0; 5]).unwrap();
            assert!(collector.finish().histogram.is_zero());
        }
    }
}
