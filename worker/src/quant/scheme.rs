//! How real numbers become those of a quantized type: type, zero point and scale, as data.

use crate::graph::{DType, TensorData};
use crate::ops::quantization::range;

/// Type of a quantized tensor, and where its zero lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// A type of [`range`], or float8e4m3fn.
    pub dtype: DType,
    /// What stands for 0, and what the scale is.
    pub zero: Zero,
}

/// What stands for 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zero {
    /// Always this number.
    Fixed {
        /// The number.
        point: i64,
        /// The scale is `amax` divided by this.
        levels: f32,
    },
    /// What makes a range from the least to the greatest value fill the type (affine quantization).
    Fitted,
}

const fn fixed(dtype: DType, point: i64, levels: f32) -> Scheme {
    Scheme { dtype, zero: Zero::Fixed { point, levels } }
}

/// int8 with zero point 0: weights everywhere, activations for TensorRT.
pub const INT8: Scheme = fixed(DType::I8, 0, 127.0);

/// int8 of which −64 to 63 are used, for weights: two products with uint8 do not overflow 16 bits.
pub const INT7: Scheme = fixed(DType::I7, 0, 63.0);

/// int4 with zero point 0, for weights.
pub const INT4: Scheme = fixed(DType::I4, 0, 7.0);

/// uint8 with zero point 128: the same values as [`INT8`].
pub const UINT8: Scheme = fixed(DType::U8, 128, 127.0);

/// uint8 with zero point 0, for tensors without negative values: the same range in twice the steps.
pub const UINT8_POSITIVE: Scheme = fixed(DType::U8, 0, 255.0);

/// Floats of 8 bits whose greatest value is 448 (Micikevicius et al. 2022, <https://arxiv.org/abs/2209.05433>).
pub const FLOAT8: Scheme = fixed(DType::F8E4M3FN, 0, 448.0);

/// What is known of the values of a tensor, or of a group of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Where a method clips magnitudes.
    pub amax: f32,
    /// Largest magnitude.
    pub abs_max: f32,
    /// Least and greatest value.
    pub bounds: Option<(f32, f32)>,
}

impl Seen {
    /// What is known of the values of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let union = |(a, b): (f32, f32), (c, d): (f32, f32)| (a.min(c), b.max(d));
        Self {
            amax: self.amax.max(other.amax),
            abs_max: self.abs_max.max(other.abs_max),
            bounds: self.bounds.zip(other.bounds).map(|(own, others)| union(own, others)),
        }
    }
}

impl Scheme {
    /// A type whose zero point is fitted to each range.
    pub const fn affine(dtype: DType) -> Self {
        Self { dtype, zero: Zero::Fitted }
    }

    /// Scale of a tensor whose values are clipped at ±`amax`.
    ///
    /// A method may choose 0: for a tensor of zeros only, or where nearly all values are 0. Then the
    /// largest magnitude seen, `abs_max`, serves, and 1 where that is 0 too: zeros are exact at any scale.
    pub fn scale(self, amax: f32, abs_max: f32) -> f32 {
        let levels = self.levels();
        first_usable([amax, abs_max, 1.0].map(|amax| amax / levels))
    }

    /// Scale and zero point for values of which that is known. A fitted range is from the least to the greatest value, both clipped at
    /// ±`amax`, and reaches to 0, which so has an integer of its own. `None`: it needs bounds that nobody knows.
    pub fn parameters(self, seen: Seen) -> Option<(f32, i64)> {
        if let Zero::Fixed { point, .. } = self.zero {
            return Some((self.scale(seen.amax, seen.abs_max), point));
        }
        let (min, max) = seen.bounds?;
        let clip = if seen.amax > 0.0 { seen.amax } else { f32::INFINITY };
        let (low, high) = (min.max(-clip).min(0.0), max.min(clip).max(0.0));
        let levels = self.levels();
        Some(self.fitted(
            first_usable([(high - low) / levels, seen.abs_max / levels, 1.0 / levels]),
            low,
        ))
    }

    /// That scale, and the zero point with which the least integer stands for `low`.
    pub fn fitted(self, scale: f32, low: f32) -> (f32, i64) {
        let (least, greatest) = range(self.dtype).unwrap_or((0, 0));
        let zero = least as f32 - low / scale;
        (scale, (zero.round_ties_even() as i64).clamp(least, greatest))
    }

    /// By what the length of a range is divided to give the scale: `amax` for a fixed zero point, the whole range for a fitted one.
    pub fn levels(self) -> f32 {
        match self.zero {
            Zero::Fixed { levels, .. } => levels,
            Zero::Fitted => {
                range(self.dtype).map_or(1.0, |(least, greatest)| (greatest - least) as f32)
            }
        }
    }

    /// Whether the zero point is the same whatever the values.
    pub fn is_symmetric(self) -> bool {
        self.zero != Zero::Fitted
    }
}

fn first_usable(scales: [f32; 3]) -> f32 {
    let usable = |scale: &f32| scale.is_finite() && *scale >= f32::MIN_POSITIVE;
    scales.into_iter().find(usable).unwrap_or(1.0)
}

/// Zero points as a constant of a type of at most 8 bits; of floats they are 0.
pub fn zero_points(dtype: DType, shape: &[i64], values: &[i64]) -> TensorData {
    // The low bits of a two's complement are the number's own.
    let codes: Vec<u8> = values.iter().map(|&value| value as u8).collect();
    packed(dtype, shape, &codes)
}

/// Whether all zero points of a type of at most 8 bits are 0: bits of integers and floats alike.
pub fn is_zero(zero_points: &TensorData) -> bool {
    zero_points.bytes.iter().all(|&byte| byte == 0)
}

/// Elements of at most 8 bits, a code each, as the standard stores them: those of less than a byte together, the first in the lowest bits.
pub fn packed(dtype: DType, shape: &[i64], codes: &[u8]) -> TensorData {
    let bits = dtype.bits();
    let bytes = if bits >= 8 {
        codes.to_vec()
    } else {
        let mask = (1_u8 << bits) - 1;
        let pack = |codes: &[u8]| {
            codes.iter().rev().fold(0_u8, |byte, code| (byte << bits) | (code & mask))
        };
        codes.chunks(8 / bits).map(pack).collect()
    };
    TensorData { dtype, shape: shape.to_vec(), bytes: bytes.into() }
}

/// int8 of `value` at `scale`, round half to even, as the interpreter's fake quantization computes it:
/// by the reciprocal of the scale.
pub fn to_int8(value: f32, scale: f32) -> i8 {
    // A cast saturates.
    (value * (1.0 / scale)).round_ties_even() as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_never_zero() {
        assert_eq!(INT8.scale(254.0, 300.0), 2.0);
        assert_eq!(INT4.scale(14.0, 300.0), 2.0);
        assert_eq!(FLOAT8.scale(896.0, 1000.0), 2.0);
        assert_eq!(UINT8_POSITIVE.scale(255.0, 300.0), 1.0);
        assert_eq!(INT8.scale(0.0, 12.7), 12.7 / 127.0, "nearly all values are 0");
        assert_eq!(INT8.scale(0.0, 0.0), 1.0 / 127.0, "zeros only");
        assert_eq!(INT8.scale(1e-44, 0.0), 1.0 / 127.0, "a scale below the smallest normal number");
    }

    #[test]
    fn a_fitted_range_holds_0_and_ends_where_the_method_clips() {
        let of = |dtype, amax, min, max| {
            let seen = Seen { amax, abs_max: 9.0, bounds: Some((min, max)) };
            Scheme::affine(dtype).parameters(seen).unwrap()
        };
        assert_eq!(of(DType::U8, 300.0, -55.0, 200.0), (1.0, 55));
        assert_eq!(of(DType::I8, 300.0, -55.0, 200.0), (1.0, 55 - 128));
        assert_eq!(of(DType::U8, 200.0, -55.0, 1000.0), (1.0, 55), "clipped");
        assert_eq!(of(DType::U8, 300.0, 10.0, 255.0), (1.0, 0), "down to 0");
        assert_eq!(of(DType::U8, 300.0, -255.0, -10.0), (1.0, 255), "up to 0");
        assert_eq!(of(DType::I4, 30.0, -5.0, 10.0), (1.0, -3));
        assert_eq!(of(DType::U8, 0.0, -55.0, 200.0), (1.0, 55), "a method that chose 0");
        assert_eq!(of(DType::U8, 0.0, 0.0, 0.0), (9.0 / 255.0, 0), "zeros only");
        assert_eq!(Scheme::affine(DType::U8).parameters(Seen::default()), None);
        assert_eq!(INT8.parameters(Seen { amax: 254.0, ..Seen::default() }), Some((2.0, 0)));
    }

    #[test]
    fn integers_saturate_and_ties_go_to_the_even() {
        let values = [0.5, 1.5, -0.5, 200.0, -200.0].map(|value| to_int8(value, 1.0));
        assert_eq!(values, [0, 2, 0, 127, -128]);
    }

    #[test]
    fn two_integers_of_4_bits_share_a_byte() {
        let data = zero_points(DType::I4, &[3], &[-1, -8, 7]);
        assert_eq!(&data.bytes[..], [0x8F, 0x07]);
        let tensor = crate::torch::to_tensor(&data, tch::Device::Cpu).unwrap();
        assert_eq!(tensor, tch::Tensor::from_slice(&[-1_i8, -8, 7]));
        assert_eq!(&zero_points(DType::U8, &[1], &[200]).bytes[..], [200]);
    }
}
