//! Rules by which the shapes of an operator's outputs follow, one family a file.
//!
//! A rule may know less than there is to know, never anything wrong: what it cannot tell is a free extent or an unknown rank. A test
//! holds all of them to what operators give, for the standard's own cases and for whole networks.

mod elementwise;
mod layout;
mod linear;
mod produce;
mod reduce;
mod resize;
mod select;
mod window;

pub use elementwise::{
    add, broadcast, cast, divide, dropout, equal, modulo, multiply, not, quantized_with_parameters,
    same, same_as_first, subtract, where_,
};
pub use layout::{
    concat, depth_to_space, expand, flatten, pad, reshape, space_to_depth, split, squeeze, tile,
    transpose, unsqueeze,
};
pub use linear::{einsum, gemm, matmul, qlinear_matmul};
pub use produce::{constant_of_shape, range, shape, size};
pub use reduce::{arg, layer_normalization, reduce_13, reduce_18, reduce_product};
pub use resize::{grid_sample, resize, upsample};
pub use select::{
    gather, gather_elements, gather_nd, non_max_suppression, non_zero, one_hot, slice, top_k,
};
pub use window::{conv, conv_transpose, global_pool, pool, qlinear_conv};
