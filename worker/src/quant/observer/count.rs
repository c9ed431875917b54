//! The inner loops of calibration: least and greatest value, and counting |x| into the bins of `torch.histc`.

use rayon::prelude::*;

/// Elements of a piece of work.
const PIECE: usize = 1 << 15;

/// A NaN or an infinity in a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// Index of the first one.
    pub index: usize,
    /// It itself.
    pub value: f32,
}

impl NotFinite {
    /// The first one of `values`, which have one.
    pub(super) fn first(values: &[f32]) -> Self {
        let index = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
        Self { index, value: values[index] }
    }
}

/// Least and greatest of all values seen.
///
/// Held as whole numbers that are ordered as the floats are, so that a loop over them vectorises and a NaN is not
/// lost: it lies beyond the infinity of its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    least: i32,
    greatest: i32,
}

/// A whole number ordered as the floats are; its own inverse on bits.
fn ordered(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & 0x7fff_ffff)
}

impl Extent {
    /// Of no value.
    pub const NOTHING: Self = Self { least: i32::MAX, greatest: i32::MIN };

    /// Of `values`, which may have a NaN: see [`Extent::is_finite`].
    pub fn of(values: &[f32]) -> Self {
        values.iter().fold(Self::NOTHING, |extent, value| {
            let key = ordered(value.to_bits().cast_signed());
            Self { least: extent.least.min(key), greatest: extent.greatest.max(key) }
        })
    }

    /// Of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let (least, greatest) = (self.least.min(other.least), self.greatest.max(other.greatest));
        Self { least, greatest }
    }

    fn is_nothing(self) -> bool {
        self.least > self.greatest
    }

    /// Whether no value was a NaN or an infinity.
    pub fn is_finite(self) -> bool {
        self.is_nothing() || (self.min().is_finite() && self.max().is_finite())
    }

    /// The least value; 0 of nothing.
    pub fn min(self) -> f32 {
        let least = if self.is_nothing() { 0 } else { self.least };
        // There is one zero.
        f32::from_bits(ordered(least).cast_unsigned()) + 0.0
    }

    /// The greatest value; 0 of nothing.
    pub fn max(self) -> f32 {
        let greatest = if self.is_nothing() { 0 } else { self.greatest };
        f32::from_bits(ordered(greatest).cast_unsigned()) + 0.0
    }

    /// The largest magnitude.
    pub fn abs_max(self) -> f32 {
        self.min().abs().max(self.max().abs())
    }
}

/// Least and greatest of `values`.
///
/// # Errors
/// The first value that is no finite number.
pub fn extent(values: &[f32]) -> Result<Extent, NotFinite> {
    let pieces = values.par_chunks(PIECE).map(Extent::of);
    let extent = pieces.reduce(|| Extent::NOTHING, Extent::with);
    if extent.is_finite() { Ok(extent) } else { Err(NotFinite::first(values)) }
}

/// Adds to `counts` how many |x| lie in each of its bins between 0 and `end`; what lies beyond is
/// left out. The last bin includes its end.
///
/// The bin of a value is that of `torch.histc` to the last bit.
pub fn count(values: &[f32], end: f32, counts: &mut [u64]) {
    let bins = counts.len();
    let pieces = values.par_chunks(PIECE).fold(
        || vec![0_u64; bins * LANES],
        |mut lanes, piece| {
            count_piece(piece, end, bins, &mut lanes);
            lanes
        },
    );
    let total = pieces.reduce_with(|mut sum, other| {
        sum.iter_mut().zip(other).for_each(|(sum, count)| *sum += count);
        sum
    });
    for lane in total.iter().flat_map(|total| total.chunks_exact(bins)) {
        counts.iter_mut().zip(lane).for_each(|(count, more)| *count += more);
    }
}

/// Neighbours count into different tables: equal values (the zeros behind a Relu) need not wait for one another.
const LANES: usize = 4;

fn count_piece(values: &[f32], end: f32, bins: usize, lanes: &mut [u64]) {
    let scale = bins as f32;
    for (i, value) in values.iter().enumerate() {
        let value = value.abs();
        if value <= end {
            let bin = ((value * scale / end) as usize).min(bins - 1);
            lanes[i % LANES * bins + bin] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extent_and_the_first_value_that_is_not_finite() {
        let of = |values: &[f32]| extent(values).map(|e| (e.min(), e.max(), e.abs_max()));
        assert_eq!(of(&[]), Ok((0.0, 0.0, 0.0)));
        assert_eq!(of(&[0.5, -3.0, 2.0]), Ok((-3.0, 2.0, 3.0)));
        assert_eq!(of(&[-0.5, -3.0]), Ok((-3.0, -0.5, 3.0)));
        assert_eq!(of(&[f32::MAX, 1e-45]), Ok((1e-45, f32::MAX, f32::MAX)));
        assert!(extent(&[-0.0]).unwrap().min().is_sign_positive());
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut many = vec![1.0; 3 * PIECE];
            many[2 * PIECE + 7] = bad;
            many[2 * PIECE + 9] = f32::NAN;
            let found = extent(&many).unwrap_err();
            assert_eq!((found.index, found.value.to_bits()), (2 * PIECE + 7, bad.to_bits()));
        }
    }

    #[test]
    fn every_value_is_counted_once_whatever_the_pieces() {
        let values: Vec<f32> = (0..200_001).map(|i| (i % 1001) as f32 / -1000.0).collect();
        let (mut whole, mut parts) = (vec![0; 300], vec![0; 300]);
        count(&values, 1.0, &mut whole);
        values.chunks(777).for_each(|part| count(part, 1.0, &mut parts));
        assert_eq!(whole, parts);
        assert_eq!(whole.iter().sum::<u64>(), 200_001);
        count(&[1.5], 1.0, &mut whole);
        assert_eq!(whole, parts, "beyond the end");
    }
}
