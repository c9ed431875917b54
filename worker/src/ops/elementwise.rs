//! Kernels that act element by element: of one tensor, of two, of any number.

use tch::{TchError, Tensor};

use super::kernel::{Arguments, Kernel, Prepare, single};
use crate::{Error, Result};

/// A function of one tensor.
pub fn unary(run: fn(&Tensor) -> Result<Tensor, TchError>) -> Result<Kernel> {
    single(move |a| Ok(run(a.get(0)?)?))
}

/// A function of two tensors, which broadcasts them as NumPy does.
///
/// Before opset 7 the second broadcasts only where `broadcast` = 1 says so, and then its axes are the first's
/// from `axis` on, by default the last ones.
pub fn binary(
    prepare: &Prepare,
    run: fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
) -> Result<Kernel> {
    if prepare.opset >= 7 {
        return single(move |a| Ok(run(a.get(0)?, a.get(1)?)?));
    }
    let broadcast = prepare.node.int("broadcast", 0)? != 0;
    let axis = match prepare.node.attributes.contains_key("axis") {
        true => Some(prepare.node.int("axis", 0)?),
        false => None,
    };
    single(move |a| {
        let (first, second) = (a.get(0)?, a.get(1)?);
        if !broadcast && first.size() != second.size() {
            return Err(Error::user(format!(
                "shapes {:?} and {:?} without `broadcast`",
                first.size(),
                second.size()
            )));
        }
        Ok(match axis {
            Some(axis) if broadcast => run(first, &placed_at(second, axis, first.dim())?)?,
            _ => run(first, second)?,
        })
    })
}

/// `tensor` with axes of extent 1 behind its own, so that the first of these is `axis` of `rank`.
fn placed_at(tensor: &Tensor, axis: i64, rank: usize) -> Result<Tensor> {
    let mut shape = tensor.size();
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    let behind = rank as i64 - from_front - shape.len() as i64;
    if from_front < 0 || behind < 0 {
        return Err(Error::user(format!(
            "a tensor of shape {shape:?} at axis {axis} of one of rank {rank}"
        )));
    }
    shape.resize(rank - from_front as usize, 1);
    Ok(tensor.f_reshape(shape)?)
}

/// A function of two tensors, applied from the first to the last of any number.
pub fn fold(run: fn(&Tensor, &Tensor) -> Result<Tensor, TchError>) -> Result<Kernel> {
    single(move |a| fold_all(a, run))
}

/// A function of two tensors, applied from the first to the last of a node's inputs.
pub fn fold_all(
    arguments: &Arguments,
    run: fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor> {
    let first = arguments.get(0)?.shallow_clone();
    (1..arguments.tensors.len())
        .try_fold(first, |so_far, index| Ok(run(&so_far, arguments.get(index)?)?))
}

/// x, or `scale` (e^(`rate` x) − 1) where x is negative: what exponential linear units share.
pub fn exponential_below_zero(x: &Tensor, scale: f64, rate: f64) -> Result<Tensor> {
    // Cut at 0 first: an overflow in the part that is not taken would make its gradient NaN.
    let below = x.f_clamp_max(0.0)?.f_mul_scalar(rate)?.f_expm1()?.f_mul_scalar(scale)?;
    Ok(x.f_where_self(&x.f_gt(0.0)?, &below)?)
}
