//! Exact counts of |x| in one pass, whatever comes first: bins of a power of two, doubled as the range grows.
//!
//! The state is a width `w = 2^e` and `N` counts (a power of two), count `i` of the values with `⌊|x| / w⌋ = i`.
//! `e` is the least one with `abs_max < N w`, so it follows from the largest |x| alone and only rises. When it rises
//! by `s`, `2^s` neighbours become one bin: `⌊⌊|x| / 2^e⌋ / 2^s⌋ = ⌊|x| / 2^(e+s)⌋`, and the division by a power of two
//! is exact in floating point. So at any time the counts are those of all values so far at the present width, as if it
//! had been known from the start: order and size of batches, pieces and threads cannot matter.
//!
//! Resolution: `abs_max / w` lies in `[N/2, N)`, at least 16 fine bins for each bin of the histogram that is made at the
//! end, and 32,768 at least. An edge of that lies within a fine bin, whose values are shared out in proportion; all other values
//! are counted where they belong. So a count differs from that of two passes by at most the values within `w` of its
//! two edges, and each value is in the right bin or, by less than `w`, in its neighbour.

use rayon::prelude::*;

use super::collect::Observed;
use super::count::{Extent, NotFinite};
use super::histogram::Histogram;

/// Fine bins for each bin of the histogram: between half as many and as many lie below `abs_max`.
const PER_BIN: usize = 32;
/// Fewest fine bins. Images have 256 values: shared out between two bins, one of them is two values, one of which a threshold by entropy seems to lose. With
/// 16,384 fine bins for a histogram of 512 that gave 0.81 in place of 2.02 for the images of Fashion-MNIST.
const LEAST_BINS: usize = 65_536;
/// Values whose bins are computed before they are counted.
const BLOCK: usize = 512;
/// Least elements of a piece of work.
const PIECE: usize = 1 << 15;
/// Most elements of a piece: its counts have 32 bits.
const MOST: usize = 1 << 30;
/// Neighbouring zeros (half of what leaves a Relu) are counted in turn in so many places, so that none waits
/// for the one before it.
const ZEROS: usize = 8;
/// The least exponent of a width; the inverse is a normal number.
pub(super) const LEAST: i32 = -126;

/// Fine bins for a histogram of `bins` bins.
pub(super) fn fine_bins(bins: usize) -> usize {
    (PER_BIN * bins).next_power_of_two().max(LEAST_BINS)
}

/// Counts of |x| in `N` bins of one width, a power of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Fine {
    /// Of the width.
    exponent: i32,
    counts: Vec<u64>,
    extent: Extent,
}

impl Fine {
    /// Nothing yet; fine enough for a histogram of `bins` bins.
    pub fn new(bins: usize) -> Self {
        Self::of_counts(LEAST, vec![0; fine_bins(bins)], Extent::NOTHING)
    }

    /// What was counted elsewhere: [`fine_bins`] counts at a width of `2^exponent`.
    pub(super) fn of_counts(exponent: i32, counts: Vec<u64>, extent: Extent) -> Self {
        Self { exponent, counts, extent }
    }

    /// All that is known, with a histogram of `bins` bins.
    pub(super) fn observed(&self, bins: usize) -> Observed {
        Observed { histogram: self.histogram(bins), extent: self.extent }
    }

    /// Counts `values`, on all threads.
    ///
    /// # Errors
    /// The first value that is no finite number; nothing is counted then.
    pub fn add(&mut self, values: &[f32]) -> Result<(), NotFinite> {
        let threads = rayon::current_num_threads();
        let size = values.len().div_ceil(threads).clamp(PIECE, MOST);
        let piece = |values| Piece::of(values, self.exponent, self.counts.len());
        let pieces: Option<Vec<Piece>> = values.par_chunks(size).map(piece).collect();
        let pieces = pieces.ok_or_else(|| NotFinite::first(values))?;
        pieces.iter().for_each(|piece| self.absorb(piece));
        Ok(())
    }

    fn absorb(&mut self, piece: &Piece) {
        self.extent = self.extent.with(piece.extent);
        let rise = piece.exponent - self.exponent;
        if rise > 0 {
            merge(&mut self.counts, rise);
            self.exponent = piece.exponent;
        }
        // Another piece may have been wider: how many of this piece's bins are one of ours.
        let narrower = (-rise).max(0).unsigned_abs();
        let (zeros, others) = piece.counts.split_at(ZEROS);
        self.counts[0] += zeros.iter().map(|&count| u64::from(count)).sum::<u64>();
        let last = bin(piece.extent.abs_max(), inverse(piece.exponent)) as usize;
        if narrower == 0 {
            let counts = self.counts[1..].iter_mut().zip(&others[..last]);
            counts.for_each(|(count, &more)| *count += u64::from(more));
        } else {
            for (i, &more) in others[..last].iter().enumerate() {
                let at = (i + 1).checked_shr(narrower).unwrap_or(0);
                self.counts[at] += u64::from(more);
            }
        }
    }

    /// The histogram of `bins` bins from 0 to the largest |x|.
    pub fn histogram(&self, bins: usize) -> Histogram {
        let abs_max = self.extent.abs_max();
        let mut histogram = Histogram::spanning(abs_max, bins);
        if histogram.is_zero() {
            return histogram;
        }
        let step = f64::from(abs_max) / bins as f64 * f64::from(inverse(self.exponent));
        // Values below the edge that the sum has come to, and the fine bin in which that edge lies.
        let (mut below, mut fine, mut before) = (0, 0, 0);
        for i in 1..=bins {
            let edge = step * i as f64;
            let within = edge as usize;
            below += self.counts[fine..within.min(self.counts.len())].iter().sum::<u64>();
            fine = within.min(self.counts.len());
            let share = edge - within as f64;
            let count = self.counts.get(fine).copied().unwrap_or(0);
            let upto = if i == bins {
                self.counts.iter().sum()
            } else {
                below + (count as f64 * share).round() as u64
            };
            histogram.counts[i - 1] = upto - before;
            before = upto;
        }
        histogram
    }
}

/// What a thread counts of a batch.
struct Piece {
    exponent: i32,
    /// [`ZEROS`] parts of the first bin's count, then the other bins'.
    counts: Vec<u32>,
    extent: Extent,
}

impl Piece {
    /// Counts of `values` in `bins` bins of a width of at least `2^exponent`; nothing if one is not finite.
    fn of(values: &[f32], exponent: i32, bins: usize) -> Option<Self> {
        let counts = vec![0; ZEROS + bins - 1];
        let mut piece = Self { exponent, counts, extent: Extent::NOTHING };
        let mut places = [0_u32; BLOCK];
        // What lies below needs no look at its exponent.
        let mut end = end(exponent, bins);
        for block in values.chunks(BLOCK) {
            let extent = Extent::of(block);
            if !extent.is_finite() {
                return None;
            }
            piece.extent = piece.extent.with(extent);
            if extent.abs_max() >= end {
                piece.raise(exponent_of(extent.abs_max(), bins));
                end = self::end(piece.exponent, bins);
            }
            find_places(block, inverse(piece.exponent), &mut places);
            for &place in &places[..block.len()] {
                piece.counts[place as usize] += 1;
            }
        }
        Some(piece)
    }

    fn raise(&mut self, exponent: i32) {
        let rise = exponent - self.exponent;
        if rise <= 0 {
            return;
        }
        // The first bin's parts as one, so that bins stand at their indices.
        let zeros: u32 = self.counts[..ZEROS].iter().sum();
        self.counts[..ZEROS].fill(0);
        self.counts[ZEROS - 1] = zeros;
        merge(&mut self.counts[ZEROS - 1..], rise);
        self.exponent = exponent;
    }
}

/// The place of each value's count in [`Piece::counts`].
fn find_places(values: &[f32], inverse: f32, places: &mut [u32; BLOCK]) {
    for (i, (place, value)) in places.iter_mut().zip(values).enumerate() {
        let bin = bin(value.abs(), inverse);
        *place = if bin == 0 { i as u32 % ZEROS as u32 } else { bin + ZEROS as u32 - 1 };
    }
}

/// The bin of a magnitude.
fn bin(magnitude: f32, inverse: f32) -> u32 {
    // By way of a signed number: that conversion is one instruction on every x86-64.
    ((magnitude * inverse) as i32).cast_unsigned()
}

/// The inverse of the width.
fn inverse(exponent: i32) -> f32 {
    power(-exponent)
}

/// 2 to an exponent from -126 to 127.
fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Where `bins` bins of that width end; infinity where that is more than every float.
fn end(exponent: i32, bins: usize) -> f32 {
    bins as f32 * power(exponent)
}

/// The least exponent of a width at which `abs_max` lies in one of `bins` bins.
fn exponent_of(abs_max: f32, bins: usize) -> i32 {
    // abs_max < 2^above.
    let above = (abs_max.to_bits() >> 23) as i32 - 126;
    (above - bins.ilog2() as i32).max(LEAST)
}

/// Makes `2^rise` neighbours one bin.
fn merge<T: Copy + Default + std::ops::AddAssign>(counts: &mut [T], rise: i32) {
    let rise = rise.unsigned_abs();
    for i in 1..counts.len() {
        let at = i.checked_shr(rise).unwrap_or(0);
        let count = std::mem::take(&mut counts[i]);
        counts[at] += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(batches: &[&[f32]], bins: usize) -> Fine {
        let counts = vec![0; (PER_BIN * bins).next_power_of_two()];
        let mut fine = Fine::of_counts(LEAST, counts, Extent::NOTHING);
        batches.iter().for_each(|batch| fine.add(batch).expect("finite"));
        fine
    }

    /// The definition, at the width that the largest |x| gives.
    fn naive(values: &[f32], bins: usize) -> (i32, Vec<u64>) {
        let abs_max = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let mut counts = vec![0; (PER_BIN * bins).next_power_of_two()];
        let fits =
            |exponent: &i32| f64::from(abs_max) < counts.len() as f64 * f64::from(*exponent).exp2();
        let exponent = (LEAST..=127).find(fits).expect("a width");
        for value in values {
            let bin = (f64::from(value.abs()) / f64::from(exponent).exp2()).floor();
            counts[bin as usize] += 1;
        }
        (exponent, counts)
    }

    fn values() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            Just(0.0_f32),
            Just(-0.0),
            -4.0..4.0_f32,
            any::<f32>().prop_filter("finite", |value| value.is_finite()),
            // Powers of two lie on edges.
            (-149..127_i32).prop_map(|e| f64::from(e).exp2() as f32),
        ];
        proptest::collection::vec(value, 1..2000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn counts_are_those_of_the_definition_in_any_order_and_any_batches(
            values in values(), size in 1..2000_usize, rotation in 0..2000_usize,
        ) {
            let whole = of(&[&values], 256);
            prop_assert_eq!((whole.exponent, whole.counts.clone()), naive(&values, 256));
            let mut turned = values.clone();
            turned.rotate_left(rotation % values.len());
            let batches: Vec<&[f32]> = turned.chunks(size).collect();
            prop_assert_eq!(&of(&batches, 256), &whole);
            let mut ascending = values.clone();
            ascending.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
            prop_assert_eq!(&of(&ascending.chunks(size).collect::<Vec<_>>(), 256), &whole);
        }
    }

    #[test]
    fn a_range_that_grows_a_millionfold_keeps_its_resolution_and_its_counts() {
        let small: Vec<f32> = (0..100_000).map(|i| i as f32 * 1e-8).collect();
        let large: Vec<f32> = (0..100_000).map(|i| i as f32 * -1e-2).collect();
        let fine = of(&[&small, &large], 2048);
        assert_eq!(fine, of(&[&large, &small], 2048));
        assert_eq!((fine.extent.min(), fine.extent.max()), (-999.99, 99_999.0 * 1e-8));
        let effective = 999.99 * inverse(fine.exponent);
        assert!((32_768.0..65_536.0).contains(&effective), "{effective}");
        let histogram = fine.histogram(2048);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 200_000);
        // All small values, and those of the large ones below the first edge, 0.488.
        assert_eq!(histogram.counts[0], 100_000 + 49);
    }

    #[test]
    fn pieces_of_several_widths_are_joined() {
        // Long enough for a piece for each thread.
        let values: Vec<f32> =
            (0..4 * PIECE).map(|i| (i % 1000) as f32 * (1 << (i / PIECE * 6)) as f32).collect();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("a pool");
        let whole = one.install(|| of(&[&values], 256));
        assert_eq!(four.install(|| of(&[&values], 256)), whole);
        assert_eq!(whole.counts, naive(&values, 256).1);
    }

    #[test]
    fn what_is_not_finite_is_not_counted() {
        let mut fine = Fine::new(256);
        let error = fine.add(&[1.0, f32::NEG_INFINITY, f32::NAN]).expect_err("refused");
        assert_eq!(error, NotFinite { index: 1, value: f32::NEG_INFINITY });
        assert_eq!(fine, Fine::new(256));
        assert!(fine.histogram(256).is_zero());
    }

    /// The values of images, normalized, each as often as the square of its distance from white.
    #[test]
    fn few_values_are_hardly_shared_out() {
        let image = (0..=255_u16).flat_map(|byte| {
            let value = (f32::from(byte) / 255.0 - 0.286) / 0.353;
            std::iter::repeat_n(value, usize::from((255 - byte) / 16).pow(2) + 1)
        });
        let values: Vec<f32> = image.collect();
        for bins in [256, 512] {
            let mut fine = Fine::new(bins);
            fine.add(&values).expect("finite");
            let histogram = fine.histogram(bins);
            let mut exact = Histogram::spanning(histogram.abs_max, bins);
            super::super::count::count(&values, exact.end(), &mut exact.counts);
            let counts = histogram.counts.iter().zip(&exact.counts);
            let moved = counts.map(|(&one, &other)| one.abs_diff(other)).sum::<u64>() / 2;
            assert!(100 * moved < values.len() as u64, "{moved} of {} with {bins}", values.len());
        }
    }

    #[test]
    fn bins_are_those_of_two_passes_but_for_values_near_an_edge() {
        let mut state = 3_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state) / 4_294_967_296.0
        };
        let values: Vec<f32> = (0..200_000).map(|_| (next() * next() * 5.3) as f32).collect();
        let histogram = of(&[&values], 2048).histogram(2048);
        let mut exact = Histogram::spanning(histogram.abs_max, 2048);
        super::super::count::count(&values, exact.end(), &mut exact.counts);
        assert_eq!(histogram.edges, exact.edges);
        let (mut sum, mut other) = (0_i64, 0_i64);
        for (&count, &expected) in histogram.counts.iter().zip(&exact.counts) {
            sum += count.cast_signed();
            other += expected.cast_signed();
            let near = i64::try_from(expected).expect("small") / 16 + 4;
            assert!((sum - other).abs() <= near, "{sum} below an edge, expected {other}");
        }
        assert_eq!(sum, 200_000);
    }
}
