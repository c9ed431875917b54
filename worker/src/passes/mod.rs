//! Rewrites of a graph, one file each.
//!
//! Each takes a model and leaves one that computes the same; names of the values that stay are kept, since
//! ranges refer to them.

mod affine;
mod batch;
mod batch_norm;
mod branches;
mod constants;
mod dead;
mod duplicates;
mod extent;
mod foreign_pairs;
mod half;
mod identity;
mod image_size;
mod inference;
mod list;
mod opset;
mod products;
mod raise;
mod scales;
mod shapes;
mod sums;

pub use affine::fold as fold_affine;
pub use batch::{EXPORT_ANY_BATCH, check_batch, fixed_batch, input_sizes, kept_batch, set_batch};
pub use batch_norm::{Folded, fold_and_tell, fold_batch_norm, unfold_batch_norm};
pub use constants::fold as fold_constants;
pub use dead::remove_dead;
pub use foreign_pairs::{is_tensorrt_pair, to_standard_pairs};
pub use half::to_half;
pub use image_size::set_image_size;
pub use inference::inference_form;
pub use list::{Applied, LIST, Pass, SIMPLIFY, apply, simplify};
pub use opset::{OPSET_OF_BLOCKS, least_opset, opset_of, set_opset};
pub use products::{biases_to_gemm, plain_products};
pub use raise::raise_opset;
pub use scales::share_pair_scales;
pub use sums::to_additions;

#[cfg(test)]
mod tests;
