//! `QuantizeLinear`: saturate(round half to even(x / scale) + zero point), per tensor, per channel or in blocks.
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>
//!
//! Opsets: 10, 13 (`axis`), 19 (float 8), 21 (`output_dtype`, blocks), 23 (`precision`) to 25 (types). To integers of 2
//! to 16 bits, float 8 and float 4.

use tch::{Kind, Tensor};

use crate::graph::DType;
use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::ops::quantization::{
    Grouping, dtype_of_number, greatest, output_dtype, range, require_zero,
};
use crate::{Error, Result, torch};

pub const OP: Op = Op::new("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25], prepare);

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let grouping = Grouping::of(prepare)?;
    // Of a zero point whose type nobody states it is told at run time.
    let dtype = match (node.input(2), prepare.dtype(2)) {
        (Some(_), None) => None,
        (_, zero_point) => Some(output_dtype(node, zero_point)?),
    };
    let saturate = node.int("saturate", 1)? != 0;
    let precision = match node.int("precision", 0)? {
        0 => None,
        number => Some(torch::kind_of(dtype_of_number("precision", number)?)?),
    };
    single(move |a| {
        let (x, scale, zero_point) = (a.get(0)?, a.get(1)?, a.optional(2));
        let dtype = match (dtype, zero_point) {
            (None, Some(zero_point)) => torch::dtype_of(zero_point.kind())?,
            (dtype, _) => dtype.unwrap_or(DType::U8),
        };
        let scale = grouping.spread(scale, x)?;
        let scaled = match precision {
            Some(kind) => x.f_to_kind(kind)?.f_div(&scale.f_to_kind(kind)?)?,
            None => x.f_div(&scale)?,
        };
        if let Some((low, high)) = range(dtype) {
            let wide = if scaled.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let rounded = scaled.f_round()?.f_to_kind(wide)?;
            let moved = match zero_point {
                Some(zero) => rounded.f_add(&grouping.spread(zero, x)?.f_to_kind(wide)?)?,
                None => rounded,
            };
            return Ok(moved.f_clamp(low, high)?.f_to_kind(torch::carrier_of(dtype)?)?);
        }
        require_zero(zero_point)?;
        to_small_float(&scaled, dtype, saturate)
    })
}

fn to_small_float(scaled: &Tensor, dtype: DType, saturate: bool) -> Result<Tensor> {
    let greatest = greatest(dtype)
        .ok_or_else(|| Error::user(format!("quantization to {} is not supported", dtype.name())))?;
    if dtype != DType::F4E2M1 {
        let inside = if saturate { &scaled.f_clamp(-greatest, greatest)? } else { scaled };
        return Ok(inside.f_to_kind(torch::carrier_of(dtype)?)?);
    }
    // float4e2m1 has no infinity: 0, 0.5, 1, 1.5, 2, 3, 4 and 6, in steps that double at 2 and 4.
    let inside = scaled.f_to_kind(Kind::Float)?.f_clamp(-greatest, greatest)?;
    let size = inside.f_abs()?;
    let halves = size.f_lt(2.0)?.f_to_kind(Kind::Float)?.f_mul_scalar(-0.5)?;
    let step = halves.f_add_scalar(1.0)?.f_add(&size.f_ge(4.0)?.f_to_kind(Kind::Float)?)?;
    Ok(inside.f_div(&step)?.f_round()?.f_mul(&step)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_4_bits_round_halves_to_even() {
        let x = [0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 4.9, 5.0, 5.1, -9.0, -0.75_f32];
        let rounded = to_small_float(&Tensor::from_slice(&x), DType::F4E2M1, true).unwrap();
        let expected = [0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 4.0, 6.0, -6.0, -1.0_f32];
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
