//! Rewrites of a graph, one file each.
//!
//! Each takes a model and leaves one that computes the same; names of the values that stay are kept, since
//! ranges refer to them.

mod batch;
mod batch_norm;
mod constants;
mod dead;
mod identity;
mod inference;
mod opset;

pub use batch::set_batch;
pub use batch_norm::fold_batch_norm;
pub use dead::remove_dead;
pub use inference::inference_form;
pub use opset::set_opset;

use crate::Result;
use crate::graph::Model;

/// One rewrite.
pub struct Pass {
    /// Its name, for logs.
    pub name: &'static str,
    /// Rewrites; how many places it changed.
    pub run: fn(&mut Model) -> Result<usize>,
}

/// What [`simplify`] does, in this order.
pub const SIMPLIFY: &[Pass] = &[
    // First, so that all that follows finds constants in one place.
    Pass { name: "constants", run: constants::fold },
    // Behind folding, which leaves identities of constants to it.
    Pass { name: "identity", run: identity::remove },
    // Last: what the others left without a reader.
    Pass { name: "dead", run: remove_dead },
];

/// Removes what says nothing at inference: constants computed by nodes, identities and dropouts, values
/// without a reader. Returns how many places changed.
pub fn simplify(model: &mut Model) -> Result<usize> {
    SIMPLIFY.iter().try_fold(0, |changed, pass| Ok(changed + (pass.run)(model)?))
}

#[cfg(test)]
mod tests;
