//! What normalizations share: the precision that their statistics are computed in.

use tch::{Kind, Tensor};

use super::kernel::Prepare;
use crate::graph::DType;
use crate::{Error, Result, torch};

/// The type in which a node computes its statistics, its attribute `stash_type`.
#[derive(Clone, Copy, Debug)]
pub struct Stash(Kind);

impl Stash {
    /// That of a node; float32 where it is left out.
    pub fn of(prepare: &Prepare) -> Result<Self> {
        let number = prepare.node.int("stash_type", 1)?;
        let dtype = i32::try_from(number).ok().and_then(DType::from_onnx);
        let known = dtype.filter(|d| [DType::F32, DType::F64, DType::F16, DType::BF16].contains(d));
        let unknown = || Error::user(format!("`stash_type` = {number} is not a floating type"));
        Ok(Self(torch::kind_of(known.ok_or_else(unknown)?)?))
    }

    /// The type for a tensor: double precision stays, in which gradients are checked.
    pub fn kind(self, x: &Tensor) -> Kind {
        if x.kind() == Kind::Double { Kind::Double } else { self.0 }
    }

    /// Runs a function on a tensor in the node's type, and gives its result in the tensor's own.
    pub fn run(self, x: &Tensor, run: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        Ok(run(&x.f_to_kind(self.kind(x))?)?.f_to_kind(x.kind())?)
    }
}
