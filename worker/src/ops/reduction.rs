//! What reductions along axes share: which axes, and whether they stay.

use tch::{Kind, Scalar, Tensor};

use super::kernel::{Kernel, Prepare, axis_from_front, single};
use crate::Result;
use crate::torch::is_float;

/// `[…]` to the same with the reduced axes of extent 1, or without them where `keepdims` is 0. `axes` are an attribute
/// before opset `moved`, then an input; `run` is given them from the front, and whether they stay.
pub fn reduce(
    prepare: &Prepare,
    moved: i64,
    run: fn(&Tensor, &[i64], bool) -> Result<Tensor>,
) -> Result<Kernel> {
    let fixed = prepare.moved_ints("axes", moved)?;
    let from_input = prepare.opset >= moved;
    let keep = prepare.node.int("keepdims", 1)? != 0;
    let empty_is_none = prepare.node.int("noop_with_empty_axes", 0)? != 0;
    single(move |a| {
        let input = a.get(0)?;
        let axes = if from_input { a.ints(1)? } else { fixed.clone() }.unwrap_or_default();
        let rank = input.dim();
        // libtorch reads an empty list as all axes: over none, and of a scalar, is over one more of extent 1.
        if (axes.is_empty() && empty_is_none) || rank == 0 {
            return run(&input.f_unsqueeze(-1)?, &[rank as i64], false);
        }
        let axes: Vec<i64> = if axes.is_empty() {
            (0..rank as i64).collect()
        } else {
            axes.iter().map(|&axis| axis_from_front(axis, rank)).collect::<Result<_>>()?
        };
        run(input, &axes, keep)
    })
}

/// Runs a function that libtorch has of floats only, of integers in double precision.
pub fn of_floats(x: &Tensor, run: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if is_float(x) {
        return run(x);
    }
    Ok(run(&x.f_to_kind(Kind::Double)?)?.f_to_kind(x.kind())?)
}

/// The sum; of nothing 0.
pub fn sum(x: &Tensor, axes: &[i64], keep: bool) -> Result<Tensor> {
    Ok(x.f_sum_dim_intlist(axes, keep, x.kind())?)
}

/// The product; of nothing 1.
pub fn product(x: &Tensor, axes: &[i64], keep: bool) -> Result<Tensor> {
    let mut axes = axes.to_vec();
    // From the last on, so that the others keep their places.
    axes.sort_unstable_by(|a, b| b.cmp(a));
    axes.dedup();
    axes.iter()
        .try_fold(x.shallow_clone(), |x, &axis| Ok(x.f_prod_dim_int(axis, keep, x.kind())?))
}

/// The norm of order `order`, whose gradient at 0 is 0.
pub fn norm(x: &Tensor, order: f64, axes: &[i64], keep: bool) -> Result<Tensor> {
    Ok(x.f_norm_scalaropt_dim(order, axes, keep)?)
}

/// The maximum; of nothing the least value of the type.
pub fn max(x: &Tensor, axes: &[i64], keep: bool) -> Result<Tensor> {
    if x.numel() > 0 {
        return Ok(x.f_amax(axes, keep)?);
    }
    let least = match x.kind() {
        Kind::Bool | Kind::Uint8 => Scalar::int(0),
        Kind::Int8 => Scalar::int(i8::MIN.into()),
        Kind::Int16 => Scalar::int(i16::MIN.into()),
        Kind::Int => Scalar::int(i32::MIN.into()),
        Kind::Int64 => Scalar::int(i64::MIN),
        _ => Scalar::float(f64::NEG_INFINITY),
    };
    of_nothing(x, axes, keep, least)
}

/// The minimum; of nothing the greatest value of the type.
pub fn min(x: &Tensor, axes: &[i64], keep: bool) -> Result<Tensor> {
    if x.numel() > 0 {
        return Ok(x.f_amin(axes, keep)?);
    }
    let greatest = match x.kind() {
        Kind::Bool => Scalar::int(1),
        Kind::Uint8 => Scalar::int(u8::MAX.into()),
        Kind::Int8 => Scalar::int(i8::MAX.into()),
        Kind::Int16 => Scalar::int(i16::MAX.into()),
        Kind::Int => Scalar::int(i32::MAX.into()),
        Kind::Int64 => Scalar::int(i64::MAX),
        _ => Scalar::float(f64::INFINITY),
    };
    of_nothing(x, axes, keep, greatest)
}

/// `value` in the shape that reducing an empty tensor has.
fn of_nothing(x: &Tensor, axes: &[i64], keep: bool, value: Scalar) -> Result<Tensor> {
    Ok(sum(x, axes, keep)?.f_full_like(value)?)
}
