//! The two passes of [`super::resample`] with AVX2: the same integers, eight at once.
//!
//! Of columns that are eight rows: their bytes are brought side by side, value by value, and back again.

use std::arch::x86_64::*;

use super::pixels::Pixels;
use super::resample::{self, BITS, HALF, Taps};

/// One value of eight rows, or eight values of one.
type Eight = [u8; 8];

#[target_feature(enable = "avx2")]
pub(super) fn rows(pixels: &Pixels, taps: &Taps) -> Pixels {
    // Compiled anew here, with wider registers.
    resample::rows(pixels, taps)
}

#[target_feature(enable = "avx2")]
pub(super) fn columns(pixels: &Pixels, taps: &Taps) -> Pixels {
    match pixels.channels {
        1 => columns_of::<1>(pixels, taps),
        _ => columns_of::<3>(pixels, taps),
    }
}

#[target_feature(enable = "avx2")]
fn columns_of<const C: usize>(pixels: &Pixels, taps: &Taps) -> Pixels {
    let (height, width) = (pixels.height, taps.0.len());
    let (from, to) = (pixels.width * C, width * C);
    let mut bytes = vec![0; height * to];
    let mut before: Vec<Eight> = vec![[0; 8]; from.next_multiple_of(8)];
    let mut behind: Vec<Eight> = vec![[0; 8]; to.next_multiple_of(8)];
    let mut eight = |rows: &[u8], out: &mut [u8]| {
        gather(rows, from, &mut before);
        let (pixels, _) = before.as_chunks::<C>();
        let (sums, _) = behind.as_chunks_mut::<C>();
        for (sums, tap) in sums.iter_mut().zip(&taps.0) {
            let mut values = [_mm256_set1_epi32(HALF as i32); C];
            for (&weight, pixel) in tap.weights.iter().zip(&pixels[tap.first..]) {
                let weight = _mm256_set1_epi32(weight as i32);
                for (value, bytes) in values.iter_mut().zip(pixel) {
                    let product = _mm256_mullo_epi32(weight, _mm256_cvtepu8_epi32(load(*bytes)));
                    *value = _mm256_add_epi32(*value, product);
                }
            }
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = bytes_of(_mm256_srli_epi32::<{ BITS as i32 }>(value));
            }
        }
        scatter(&behind, out, to);
    };
    for (rows, out) in pixels.bytes.chunks(8 * from).zip(bytes.chunks_mut(8 * to)) {
        if rows.len() == 8 * from {
            eight(rows, out);
            continue;
        }
        let mut filled = rows.to_vec();
        filled.resize(8 * from, 0);
        let mut all = vec![0; 8 * to];
        eight(&filled, &mut all);
        out.copy_from_slice(&all[..out.len()]);
    }
    Pixels { height, width, channels: C, bytes }
}

#[target_feature(enable = "avx2")]
fn load(bytes: Eight) -> __m128i {
    _mm_cvtsi64_si128(i64::from_le_bytes(bytes))
}

/// Numbers as bytes, 255 where they are greater.
#[target_feature(enable = "avx2")]
fn bytes_of(numbers: __m256i) -> Eight {
    let halves = (_mm256_castsi256_si128(numbers), _mm256_extracti128_si256::<1>(numbers));
    let words = _mm_packus_epi32(halves.0, halves.1);
    _mm_cvtsi128_si64(_mm_packus_epi16(words, words)).to_le_bytes()
}

/// Eight rows of `length` bytes, value by value.
#[target_feature(enable = "avx2")]
fn gather(rows: &[u8], length: usize, values: &mut [Eight]) {
    let rows: [&[u8]; 8] = std::array::from_fn(|row| &rows[row * length..][..length]);
    let whole = length / 8;
    // Of a length that is known the compiler checks no index.
    let parts = rows.map(|row| &row.as_chunks().0[..whole]);
    let (blocks, _) = values.as_chunks_mut();
    for (index, block) in blocks[..whole].iter_mut().enumerate() {
        *block = transposed(parts.map(|row| row[index]));
    }
    if let Some(block) = blocks.get_mut(whole) {
        *block = transposed(rows.map(|row| {
            let mut bytes = [0; 8];
            bytes[..length % 8].copy_from_slice(&row[8 * whole..]);
            bytes
        }));
    }
}

/// The reverse.
#[target_feature(enable = "avx2")]
fn scatter(values: &[Eight], rows: &mut [u8], length: usize) {
    let whole = length / 8;
    let (blocks, _) = values.as_chunks();
    let mut rest = rows;
    let mut rows: [&mut [u8]; 8] = std::array::from_fn(|_| {
        let (row, behind) = std::mem::take(&mut rest).split_at_mut(length);
        rest = behind;
        row
    });
    if let Some(block) = blocks.get(whole) {
        for (row, bytes) in rows.iter_mut().zip(transposed(*block)) {
            row[8 * whole..].copy_from_slice(&bytes[..length % 8]);
        }
    }
    let parts = rows.map(|row| &mut row.as_chunks_mut().0[..whole]);
    for (index, block) in blocks[..whole].iter().enumerate() {
        let bytes = transposed(*block);
        for row in 0..8 {
            parts[row][index] = bytes[row];
        }
    }
}

#[target_feature(enable = "avx2")]
fn transposed(rows: [Eight; 8]) -> [Eight; 8] {
    let pair = |row: usize| _mm_unpacklo_epi8(load(rows[row]), load(rows[row + 1]));
    let (a, b, c, d) = (pair(0), pair(2), pair(4), pair(6));
    let (upper_left, lower_left) = (_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
    let (upper_right, lower_right) = (_mm_unpacklo_epi16(c, d), _mm_unpackhi_epi16(c, d));
    let two = [
        _mm_unpacklo_epi32(upper_left, upper_right),
        _mm_unpackhi_epi32(upper_left, upper_right),
        _mm_unpacklo_epi32(lower_left, lower_right),
        _mm_unpackhi_epi32(lower_left, lower_right),
    ];
    let [a, b, c, d] = two.map(|two| [_mm_cvtsi128_si64(two), _mm_extract_epi64::<1>(two)]);
    [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]].map(i64::to_le_bytes)
}
