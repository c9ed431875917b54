//! The operators of the standard's own domain, one file each, named as the operator in small letters.
//!
//! A file says what the operator computes, where it is specified, the opsets in which it changed and what of
//! it is refused; its `OP` reads a node's attributes once and gives the kernel that runs it. A new operator
//! is one file and one line below. (`make fmt` names these files to rustfmt, which does not look into macros.)

use super::Op;

macro_rules! operators {
    ($($file:ident)*) => {
        $(mod $file;)*
        /// Each file's operator.
        pub const ALL: &[&Op] = &[$(&$file::OP),*];
    };
}

pub use batch_normalization::running_statistics;

operators! {
    abs
    add
    arg_max
    arg_min
    average_pool
    batch_normalization
    clip
    concat
    constant_of_shape
    conv
    conv_transpose
    depth_to_space
    dequantize_linear
    div
    dropout
    erf
    exp
    expand
    flatten
    gather
    gather_elements
    gather_nd
    gelu
    gemm
    global_average_pool
    global_lp_pool
    global_max_pool
    grid_sample
    hard_sigmoid
    hard_swish
    identity
    layer_normalization
    leaky_relu
    log
    log_softmax
    lp_pool
    mat_mul
    max
    max_pool
    min
    mul
    neg
    non_max_suppression
    non_zero
    not
    one_hot
    pad
    pow
    quantize_linear
    reciprocal
    reduce_max
    reduce_mean
    reduce_sum
    relu
    reshape
    resize
    scatter
    scatter_elements
    scatter_nd
    shape
    sigmoid
    slice
    softmax
    space_to_depth
    split
    sqrt
    squeeze
    sub
    tanh
    tile
    top_k
    transpose
    unsqueeze
    upsample
}
