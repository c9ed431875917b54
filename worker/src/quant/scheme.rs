//! How real numbers become integers: type, zero point and scale.

use crate::graph::{DType, TensorData};

/// Type and zero point of a quantized tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// int8 or uint8.
    pub dtype: DType,
    /// The integer that stands for 0.
    pub zero_point: u8,
    /// The scale is `amax` divided by this.
    pub levels: u8,
}

/// int8 with zero point 0: weights everywhere, activations for TensorRT.
pub const INT8: Scheme = Scheme { dtype: DType::I8, zero_point: 0, levels: 127 };

/// uint8 with zero point 128: the same values as [`INT8`].
pub const UINT8: Scheme = Scheme { dtype: DType::U8, zero_point: 128, levels: 127 };

/// uint8 with zero point 0, for tensors without negative values: the same range in twice the steps.
pub const UINT8_POSITIVE: Scheme = Scheme { dtype: DType::U8, zero_point: 0, levels: 255 };

impl Scheme {
    /// The zero point as a constant of `shape`.
    pub fn zero_point_data(self, shape: &[i64]) -> TensorData {
        let count = shape.iter().product::<i64>() as usize;
        let bytes = vec![self.zero_point; count];
        TensorData { dtype: self.dtype, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// Scale of a tensor whose values are clipped at ±`amax`.
    ///
    /// A method may choose 0: for a tensor of zeros only, or where nearly all values are 0. Then the
    /// largest magnitude seen, `abs_max`, serves, and 1 where that is 0 too: zeros are exact at any scale.
    pub fn scale(self, amax: f32, abs_max: f32) -> f32 {
        let scales = [amax, abs_max, 1.0].map(|amax| amax / f32::from(self.levels));
        let usable = |scale: &f32| scale.is_finite() && *scale >= f32::MIN_POSITIVE;
        scales.into_iter().find(usable).unwrap_or(1.0)
    }
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
        assert_eq!(UINT8_POSITIVE.scale(255.0, 300.0), 1.0);
        assert_eq!(INT8.scale(0.0, 12.7), 12.7 / 127.0, "nearly all values are 0");
        assert_eq!(INT8.scale(0.0, 0.0), 1.0 / 127.0, "zeros only");
        assert_eq!(INT8.scale(1e-44, 0.0), 1.0 / 127.0, "a scale below the smallest normal number");
    }

    #[test]
    fn integers_saturate_and_ties_go_to_the_even() {
        let values = [0.5, 1.5, -0.5, 200.0, -200.0].map(|value| to_int8(value, 1.0));
        assert_eq!(values, [0, 2, 0, 127, -128]);
    }
}
