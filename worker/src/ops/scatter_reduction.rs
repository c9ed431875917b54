//! What a scatter does with an update and what is there: the attribute `reduction`.

use crate::graph::Node;
use crate::{Error, Result};

/// How an update meets the element at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// It takes its place.
    None,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The lesser.
    Min,
    /// The greater.
    Max,
}

impl Reduction {
    /// The attribute of `node`.
    pub fn of(node: &Node) -> Result<Self> {
        Ok(match node.text("reduction", "none")? {
            "none" => Self::None,
            "add" => Self::Add,
            "mul" => Self::Mul,
            "min" => Self::Min,
            "max" => Self::Max,
            other => return Err(Error::user(format!("`reduction` = {other} is not defined"))),
        })
    }

    /// libtorch's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Add => "sum",
            Self::Mul => "prod",
            Self::Min => "amin",
            Self::Max => "amax",
        }
    }
}
