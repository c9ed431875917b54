//! Elements of constants of any type, as numbers that can be compared.

use half::{bf16, f16};

use crate::graph::{DType, TensorData};

/// The elements as floats of double precision, integers beyond 2⁵³ rounded; `None`: of a type of 8 bits or fewer that
/// is not an integer of whole bytes.
fn numbers(data: &TensorData) -> Option<Box<dyn Iterator<Item = f64> + '_>> {
    macro_rules! each {
        ($type:ty, $to:expr) => {
            Box::new(data.bytes.chunks_exact(size_of::<$type>()).map(|chunk| {
                $to(<$type>::from_le_bytes(chunk.try_into().expect("chunks are exact")))
            }))
        };
    }
    Some(match data.dtype {
        DType::F32 => each!(f32, f64::from),
        DType::F64 => each!(f64, f64::from),
        DType::F16 => each!(f16, f64::from),
        DType::BF16 => each!(bf16, f64::from),
        DType::I8 | DType::I7 => each!(i8, f64::from),
        DType::U8 | DType::Bool => each!(u8, f64::from),
        DType::I16 => each!(i16, f64::from),
        DType::U16 => each!(u16, f64::from),
        DType::I32 => each!(i32, f64::from),
        DType::U32 => each!(u32, f64::from),
        DType::I64 => each!(i64, |value: i64| value as f64),
        DType::U64 => each!(u64, |value: u64| value as f64),
        _ => return None,
    })
}

/// Largest difference of two constants of one shape; `None` where the shapes differ, a NaN stands
/// against a number, or the type has no numbers here.
pub(super) fn max_difference(a: &TensorData, b: &TensorData) -> Option<f64> {
    if a.shape != b.shape {
        return None;
    }
    let mut largest = 0.0_f64;
    for (a, b) in numbers(a)?.zip(numbers(b)?) {
        if a.total_cmp(&b).is_eq() || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let difference = (a - b).abs();
        if difference.is_nan() {
            return None;
        }
        largest = largest.max(difference);
    }
    Some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_difference_of_any_types() {
        let f = |values: &[f32]| TensorData::f32(&[values.len() as i64], values);
        assert_eq!(max_difference(&f(&[1.0, 2.0]), &f(&[1.0, -2.5])), Some(4.5));
        let integers = TensorData::i8(&[2], &[1, -128]);
        assert_eq!(max_difference(&integers, &f(&[1.0, 127.0])), Some(255.0));
        assert_eq!(max_difference(&f(&[f32::NAN]), &f(&[f32::NAN])), Some(0.0));
        assert_eq!(max_difference(&f(&[f32::NAN]), &f(&[0.0])), None);
        assert_eq!(max_difference(&f(&[f32::INFINITY]), &f(&[f32::INFINITY])), Some(0.0));
        assert_eq!(max_difference(&f(&[0.0]), &f(&[0.0, 0.0])), None);
    }
}
