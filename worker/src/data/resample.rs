//! Resizing, to the bytes of Pillow's `Image.resize(size, BILINEAR)`, which torchvision's `Resize` calls.
//!
//! Pillow computes in integers (`src/libImaging/Resample.c`): weights have 22 bits behind the point, and each of the two passes, of
//! columns and of rows, rounds to a byte. Weights of 16 bits, as other libraries take them, give another byte in every fifth place.

use super::pixels::Pixels;
#[cfg(target_arch = "x86_64")]
use super::resample_avx2 as avx2;

/// Bits behind the point of a weight: 32, without those of a byte and two to spare.
pub(super) const BITS: u32 = 32 - 8 - 2;
/// A half, which sums start at to be rounded.
pub(super) const HALF: u32 = 1 << (BITS - 1);
/// Values of a row that are computed at once.
const BLOCK: usize = 32;

/// Bilinear with antialiasing.
pub(super) fn resize(mut pixels: Pixels, height: usize, width: usize) -> Pixels {
    if rows_first((pixels.height, pixels.width), (height, width)) {
        pixels = fast_rows(&pixels, &Taps::of(pixels.height, height));
    }
    if width != pixels.width {
        pixels = fast_columns(&pixels, &Taps::of(pixels.width, width));
    }
    if height != pixels.height {
        pixels = fast_rows(&pixels, &Taps::of(pixels.height, height));
    }
    pixels
}

/// Which pass is the first, as Pillow 13 decides it (told by what it makes of 4,000 pairs of sizes; versions before began with the columns always):
/// that of the rows where they become fewer, by more than twice what the columns do.
fn rows_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let fewer = |from: usize, to: usize| from as i64 - to as i64;
    to.0 < from.0 && fewer(from.0, to.0) > 2 * fewer(from.1, to.1)
}

fn fast_columns(pixels: &Pixels, taps: &Taps) -> Pixels {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which is all that the function asks for.
        return unsafe { avx2::columns(pixels, taps) };
    }
    columns(pixels, taps)
}

fn fast_rows(pixels: &Pixels, taps: &Taps) -> Pixels {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which is all that the function asks for.
        return unsafe { avx2::rows(pixels, taps) };
    }
    rows(pixels, taps)
}

/// Of which input places along an axis an output one is the sum.
pub(super) struct Tap {
    /// The first of them.
    pub first: usize,
    /// What each counts, in units of 2⁻²²; together 1 but for rounding.
    pub weights: Vec<u32>,
}

/// Those of all output places.
pub(super) struct Taps(pub Vec<Tap>);

impl Taps {
    /// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`: a triangle that is two places wide, or as much wider as the axis shrinks.
    fn of(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let tap = |out: usize| {
            let centre = (out as f64 + 0.5) * scale;
            // Below zero it is 0, as there.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |place: usize| {
                let distance = (place as f64 - centre + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            };
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: f64| (0.5 + weight / sum * f64::from(1 << BITS)) as u32;
            Tap { first, weights: weights.into_iter().map(fixed).collect() }
        };
        Self((0..to).map(tap).collect())
    }
}

fn columns(pixels: &Pixels, taps: &Taps) -> Pixels {
    match pixels.channels {
        1 => columns_of::<1>(pixels, taps),
        _ => columns_of::<3>(pixels, taps),
    }
}

fn columns_of<const C: usize>(pixels: &Pixels, taps: &Taps) -> Pixels {
    let (height, width) = (pixels.height, taps.0.len());
    let mut bytes = Vec::with_capacity(height * width * C);
    for row in pixels.bytes.chunks_exact(pixels.width * C) {
        let (row, _) = row.as_chunks::<C>();
        for tap in &taps.0 {
            let mut sums = [HALF; C];
            for (&weight, pixel) in tap.weights.iter().zip(&row[tap.first..]) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += weight * u32::from(byte);
                }
            }
            bytes.extend(sums.map(byte));
        }
    }
    Pixels { height, width, channels: C, bytes }
}

/// Inlined where more of the processor may be used.
#[inline(always)]
pub(super) fn rows(pixels: &Pixels, taps: &Taps) -> Pixels {
    let (height, row) = (taps.0.len(), pixels.width * pixels.channels);
    let mut bytes = vec![0; height * row];
    for (tap, out) in taps.0.iter().zip(bytes.chunks_exact_mut(row)) {
        let from = &pixels.bytes[tap.first * row..];
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        let start = blocks.len() * BLOCK;
        for (index, out) in blocks.iter_mut().enumerate() {
            *out = sums(&from[index * BLOCK..], row, &tap.weights);
        }
        for (index, out) in rest.iter_mut().enumerate() {
            [*out] = sums(&from[start + index..], row, &tap.weights);
        }
    }
    Pixels { height, bytes, ..*pixels }
}

/// The first `N` values of rows that lie `row` bytes apart, summed up.
#[inline(always)]
fn sums<const N: usize>(from: &[u8], row: usize, weights: &[u32]) -> [u8; N] {
    let mut sums = [HALF; N];
    for (&weight, from) in weights.iter().zip(from.chunks(row)) {
        for (sum, &byte) in sums.iter_mut().zip(&from[..N]) {
            *sum += weight * u32::from(byte);
        }
    }
    sums.map(byte)
}

/// Weights that were rounded may make a little more than 1.
#[inline(always)]
fn byte(sum: u32) -> u8 {
    (sum >> BITS).min(255) as u8
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::super::random::generator;
    use super::*;

    fn gray(height: usize, width: usize, bytes: &[u8]) -> Pixels {
        Pixels { height, width, channels: 1, bytes: bytes.to_vec() }
    }

    #[test]
    fn halving_weighs_by_the_widened_triangle() {
        // Pillow: Image.fromarray([[0, 40, 80, 120]]).resize((2, 1), BILINEAR). The triangle of half
        // width 2 about input coordinate 1 weighs the centres 0.5, 1.5, 2.5 by 3:3:1.
        assert_eq!(resize(gray(1, 4, &[0, 40, 80, 120]), 1, 2).bytes, [29, 91]);
    }

    #[test]
    fn enlarging_interpolates_between_centres() {
        // Centres of the output lie at 0.25, 0.75, 1.25, 1.75 of two pixels with centres 0.5, 1.5.
        assert_eq!(resize(gray(1, 2, &[0, 100]), 1, 4).bytes, [0, 25, 75, 100]);
    }

    #[test]
    fn bytes_are_pillows() {
        // np.asarray(Image.fromarray(a).resize((width, height), Image.BILINEAR)) of a[y, x] = (37 y² + 91 x + 11 x y) mod 256.
        let image = |height: usize, width: usize| {
            let value = |y: usize, x: usize| (37 * y * y + 91 * x + 11 * x * y) as u8;
            let bytes = (0..height * width).map(|index| value(index / width, index % width));
            gray(height, width, &bytes.collect::<Vec<u8>>())
        };
        let columns_first =
            [77, 143, 126, 116, 145, 118, 141, 142, 121, 96, 122, 125, 147, 116, 85];
        assert_eq!(resize(image(7, 9), 3, 5).bytes, columns_first);
        // 8 rows fewer, a column fewer; columns first would give other bytes.
        let rows_first = [
            70, 127, 147, 125, 134, 112, 138, 140, 142, 168, 94, 160, 92, 115, 121, 122, 82, 128,
            174, 133,
        ];
        assert_eq!(resize(image(12, 6), 4, 5).bytes, rows_first);
    }

    #[test]
    fn all_ways_give_the_same_bytes() {
        let mut random = generator(4, 0, 0);
        for (channels, from, to) in [
            (1, (9, 7), (4, 3)),
            (3, (5, 41), (8, 90)),
            (3, (64, 50), (3, 7)),
            (1, (2, 900), (5, 2)),
            (3, (1, 1), (3, 2)),
        ] {
            let bytes = (0..from.0 * from.1 * channels).map(|_| random.random()).collect();
            let image = Pixels { height: from.0, width: from.1, channels, bytes };
            let wide = columns(&image, &Taps::of(from.1, to.1));
            let expected = rows(&wide, &Taps::of(from.0, to.0));
            assert_eq!(resize(image, to.0, to.1), expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn white_stays_white_of_any_number_of_pixels() {
        for width in [3, 1_000, 70_001] {
            let white = resize(gray(2, width, &vec![255; 2 * width]), 1, 2);
            assert_eq!(white.bytes, [255, 255], "{width}");
        }
    }
}
