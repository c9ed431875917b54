//! What normalizations share: the precision that their statistics are computed in.

use tch::{Kind, Tensor};

use super::kernel::Prepare;
use crate::graph::DType;
use crate::{Error, Result, torch};

/// The type in which a node computes its statistics.
pub fn stash_kind(prepare: &Prepare) -> Result<Kind> {
    let number = prepare.node.int("stash_type", 1)?;
    let dtype = i32::try_from(number).ok().and_then(DType::from_onnx);
    let known = dtype.filter(|d| [DType::F32, DType::F64, DType::F16, DType::BF16].contains(d));
    let unknown = || Error::user(format!("`stash_type` = {number} is not a floating type"));
    torch::kind_of(known.ok_or_else(unknown)?)
}

/// Runs a function on a tensor in the type that `stash_type` names, and gives its result in the tensor's own.
///
/// What is wider than the stash stays as it is: gradients are checked in double precision.
pub fn stashed(
    prepare: &Prepare,
) -> Result<impl Fn(&Tensor, &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> + Send + use<>> {
    let stash = stash_kind(prepare)?;
    Ok(move |x: &Tensor, run: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let wide = if x.kind() == Kind::Double { Kind::Double } else { stash };
        Ok(run(&x.f_to_kind(wide)?)?.f_to_kind(x.kind())?)
    })
}
