//! The two inner loops of calibration: the largest |x|, and counting |x| into bins.

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

/// Largest |x|; 0 of nothing.
///
/// # Errors
/// The first value that is no finite number.
pub fn abs_max(values: &[f32]) -> Result<f32, NotFinite> {
    // The bits of non-negative floats are ordered as the floats are, infinity and NaN above all.
    let largest = |piece: &[f32]| {
        piece.iter().fold(0, |most: u32, value| most.max(value.to_bits() & 0x7fff_ffff))
    };
    let most = f32::from_bits(values.par_chunks(PIECE).map(largest).max().unwrap_or(0));
    if most.is_finite() {
        return Ok(most);
    }
    let index = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    Err(NotFinite { index, value: values[index] })
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
    fn the_largest_magnitude_and_the_first_value_that_is_not_finite() {
        assert_eq!(abs_max(&[]), Ok(0.0));
        assert_eq!(abs_max(&[0.5, -3.0, 2.0]), Ok(3.0));
        let mut many = vec![1.0; 3 * PIECE];
        many[2 * PIECE + 7] = f32::NEG_INFINITY;
        many[2 * PIECE + 9] = f32::NAN;
        let expected = NotFinite { index: 2 * PIECE + 7, value: f32::NEG_INFINITY };
        assert_eq!(abs_max(&many), Err(expected));
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
