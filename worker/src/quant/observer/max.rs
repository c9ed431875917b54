//! Method `max`: the largest |x|.

use super::{Histogram, Settings};

pub(super) fn amax(histogram: &Histogram, _: &Settings) -> f32 {
    histogram.abs_max
}
