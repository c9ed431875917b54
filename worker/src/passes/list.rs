//! The passes, in the order in which they are applied, and what applies them.

use super::{affine, batch_norm, constants, dead, duplicates, identity, products, shapes};
use crate::Result;
use crate::graph::Model;

/// One rewrite: after it the model computes the same.
pub struct Pass {
    /// Its name, for logs.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Rewrites; how many places it changed.
    pub run: fn(&mut Model) -> Result<usize>,
}

/// Before folding, which computes what reads them.
const SHAPES: Pass = Pass {
    name: "shapes",
    about: "writes down shapes that the model computes, where they do not depend on the batch",
    run: shapes::fold,
};
/// Makes initializers of nodes that compute constants. Early, so that all that follows finds constants in one place.
const CONSTANTS: Pass =
    Pass { name: "constants", about: "computes what reads only constants", run: constants::fold };
/// Behind folding, which leaves identities of constants to it.
const IDENTITY: Pass =
    Pass { name: "identity", about: "removes identities and dropouts", run: identity::remove };
/// Behind identities, which hide that two nodes read the same.
const DUPLICATES: Pass = Pass {
    name: "duplicates",
    about: "computes once what equal nodes compute, keeps once what equal integer constants hold",
    run: duplicates::merge,
};
/// Before constants and normalizations are folded, which wants a Gemm without factors.
const PRODUCTS: Pass = Pass {
    name: "plain-products",
    about: "brings Gemm and MatMul into the form that has integer kernels",
    run: products::plain_products,
};
/// Before normalizations, into which they fold too.
const AFFINE: Pass = Pass {
    name: "affine",
    about: "folds constants that are multiplied or added into the layers before them",
    run: affine::fold,
};
/// Behind constants that are multiplied behind the bias.
const BIASES: Pass = Pass {
    name: "biases",
    about: "makes one Gemm of MatMul and its bias",
    run: products::biases_to_gemm,
};
/// Behind identities, which may stand between a layer and its normalization.
const BATCH_NORM: Pass = Pass {
    name: "batch-norm",
    about: "folds normalizations into the layers before them",
    run: batch_norm::fold_batch_norm,
};
/// Last: what the others left without a reader.
const DEAD: Pass =
    Pass { name: "dead", about: "removes what nobody reads", run: dead::remove_dead };

/// All passes, in their order. Rewrites that need to be told something ([`super::set_batch`], [`super::set_opset`])
/// are functions of their own.
pub const LIST: &[Pass] =
    &[SHAPES, CONSTANTS, IDENTITY, DUPLICATES, PRODUCTS, AFFINE, BIASES, BATCH_NORM, DEAD];

/// Those that training does not mind: normalizations and constants behind layers stay.
pub const SIMPLIFY: &[Pass] = &[SHAPES, CONSTANTS, IDENTITY, DUPLICATES, DEAD];

/// What a pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The pass.
    pub pass: &'static str,
    /// How many places it changed.
    pub changes: usize,
}

/// Applies passes one after the other; what each did, in the same order.
///
/// # Errors
/// What a pass refuses, with its name.
pub fn apply(model: &mut Model, passes: &[Pass]) -> Result<Vec<Applied>> {
    let each = passes.iter().map(|pass| {
        let changes =
            (pass.run)(model).map_err(|error| error.at(format!("pass `{}`", pass.name)))?;
        Ok(Applied { pass: pass.name, changes })
    });
    each.collect()
}

/// Removes what says nothing at inference: constants computed by nodes, identities and dropouts, equal nodes, values
/// without a reader. Returns how many places changed.
pub fn simplify(model: &mut Model) -> Result<usize> {
    Ok(apply(model, SIMPLIFY)?.iter().map(|applied| applied.changes).sum())
}
