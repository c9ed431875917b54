//! Conversions between element types: what Cast, CastLike and QuantizeLinear share.

use tch::{Kind, Tensor};

use super::quantization::{dtype_of_number, range};
use crate::graph::{Attribute, DType, Node};
use crate::{Error, Result, torch};

/// Greatest finite value of a quantized type of floats; the least is its negative.
pub fn greatest(dtype: DType) -> Option<f64> {
    match dtype {
        DType::F8E4M3FN => Some(448.0),
        DType::F8E4M3FNUZ => Some(240.0),
        DType::F8E5M2 | DType::F8E5M2FNUZ => Some(57344.0),
        DType::F4E2M1 => Some(6.0),
        _ => None,
    }
}

/// The type that a `Cast` names; before opset 6 by its name in capitals.
pub fn cast_target(node: &Node) -> Result<DType> {
    match node.attributes.get("to") {
        Some(Attribute::Int(number)) => dtype_of_number("to", *number),
        Some(Attribute::String(name)) => {
            let name = String::from_utf8_lossy(name).to_lowercase();
            DType::from_name(&name)
                .ok_or_else(|| Error::user(format!("`to` = {name} is not a type of numbers")))
        }
        _ => Err(Error::user("attribute `to` is missing")),
    }
}

/// A tensor's values in another type.
///
/// Floats become whole numbers towards zero; of whole numbers that do not fit, the higher bits are lost; floats
/// of 8 bits take their greatest value for what is beyond it, or with `saturate` off infinity or NaN.
///
/// # Errors
/// A type that nothing here holds: uint64, float8e8m0.
pub fn convert(x: &Tensor, to: DType, saturate: bool) -> Result<Tensor> {
    if let Ok(kind) = torch::kind_of(to) {
        return Ok(x.f_to_kind(kind)?);
    }
    let carrier = torch::carrier_of(to)?;
    let range = if to == DType::U32 { Some((0, u32::MAX.into())) } else { range(to) };
    let Some((low, high)) = range else {
        let wide = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        return to_small_float(&x.f_to_kind(wide)?, to, saturate);
    };
    // A power of two that all values of the type lie below, counted from the least.
    let count = high - low + 1;
    let wrapped = x.f_to_kind(Kind::Int64)?.f_sub_scalar(low)?.f_remainder(count)?;
    Ok(wrapped.f_add_scalar(low)?.f_to_kind(carrier)?)
}

/// Floats to those of 8 or 4 bits, to the nearest and of two the even one.
pub fn to_small_float(scaled: &Tensor, dtype: DType, saturate: bool) -> Result<Tensor> {
    let greatest = greatest(dtype)
        .ok_or_else(|| Error::user(format!("a conversion to {} is not supported", dtype.name())))?;
    if dtype != DType::F4E2M1 {
        let inside = if saturate { &scaled.f_clamp(-greatest, greatest)? } else { scaled };
        return Ok(inside.f_to_kind(torch::carrier_of(dtype)?)?);
    }
    // float4e2m1 has no infinity and no NaN, which becomes -0: 0, 0.5, 1, 1.5, 2, 3, 4 and 6, in steps that double at 2 and 4.
    let inside = scaled.f_to_kind(Kind::Float)?.f_clamp(-greatest, greatest)?;
    let size = inside.f_abs()?;
    let halves = size.f_lt(2.0)?.f_to_kind(Kind::Float)?.f_mul_scalar(-0.5)?;
    let step = halves.f_add_scalar(1.0)?.f_add(&size.f_ge(4.0)?.f_to_kind(Kind::Float)?)?;
    Ok(inside.f_div(&step)?.f_round()?.f_mul(&step)?.f_nan_to_num(-0.0, None, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_bits_of_whole_numbers_are_lost() {
        let x = Tensor::from_slice(&[-9_i64, -8, 7, 8, 200, 70_000]);
        let to =
            |dtype| torch::tensor_data(&convert(&x, dtype, true).unwrap().to_kind(Kind::Int64));
        let to = |dtype| to(dtype).unwrap().to_i64().unwrap();
        assert_eq!(to(DType::I4), [7, -8, 7, -8, -8, 0]);
        assert_eq!(to(DType::U4), [7, 8, 7, 8, 8, 0]);
        assert_eq!(to(DType::I2), [-1, 0, -1, 0, 0, 0]);
        assert_eq!(to(DType::I8), [-9, -8, 7, 8, -56, 112]);
        assert_eq!(to(DType::U16), [65527, 65528, 7, 8, 200, 4464]);
        assert_eq!(to(DType::U32)[..3], [4_294_967_287, 4_294_967_288, 7]);
        assert!(convert(&x, DType::U64, true).is_err());
    }

    #[test]
    fn floats_of_4_bits_round_halves_to_even() {
        let x = [f32::NAN, 0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 4.9, 5.0, 5.1, -9.0, -0.75_f32];
        let rounded = to_small_float(&Tensor::from_slice(&x), DType::F4E2M1, true).unwrap();
        let expected = [-0.0, 0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 4.0, 6.0, -6.0, -1.0_f32];
        assert_eq!(rounded, Tensor::from_slice(&expected));
    }

    #[test]
    fn floats_of_8_bits_saturate_unless_told_otherwise() {
        let x = Tensor::from_slice(&[500.0_f32, -1e9, 464.0]);
        let to =
            |saturate| to_small_float(&x, DType::F8E4M3FN, saturate).unwrap().to_kind(Kind::Float);
        assert_eq!(to(true), Tensor::from_slice(&[448.0_f32, -448.0, 448.0]));
        // 464 is the tie between 448 and what would be 480, and rounds to the even 448.
        assert_eq!(to(false).isnan(), Tensor::from_slice(&[true, true, false]));
    }
}
