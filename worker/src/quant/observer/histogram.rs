//! A histogram of |x|.

/// Counts of |x| in bins of one width, the first of which begins at 0.
///
/// Counts are whole numbers of 64 bits: sums over batches and threads are exact, in whatever order
/// (`torch.histc` counts in float32, which stops at 2²⁴ a bin).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// Where bins begin, and last where the last one ends: one more than `counts`.
    pub edges: Vec<f32>,
    /// Largest |x| seen.
    pub abs_max: f32,
}

impl Histogram {
    /// Empty bins from 0 to `abs_max`, edges as of `linspace(0, abs_max, bins + 1)`.
    pub fn spanning(abs_max: f32, bins: usize) -> Self {
        if abs_max <= 0.0 {
            return Self::default();
        }
        // In double precision, then rounded: libtorch's own edges differ in the last bit with the
        // width of the processor's vectors.
        let step = f64::from(abs_max) / bins as f64;
        let edge = |i: usize| (step * i as f64) as f32;
        Self { counts: vec![0; bins], edges: (0..=bins).map(edge).collect(), abs_max }
    }

    /// Whether only zeros were seen.
    pub fn is_zero(&self) -> bool {
        self.counts.is_empty()
    }

    /// Width of a bin, as pytorch-quantization takes it: that of the first.
    pub fn width(&self) -> f32 {
        if self.edges.len() < 2 { 0.0 } else { self.edges[1] - self.edges[0] }
    }

    /// Where the last bin ends.
    pub fn end(&self) -> f32 {
        self.edges.last().copied().unwrap_or(0.0)
    }
}
