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
    average_pool
    batch_normalization
    clip
    concat
    constant_of_shape
    conv
    dequantize_linear
    div
    dropout
    erf
    exp
    expand
    flatten
    gather
    gelu
    gemm
    global_average_pool
    global_max_pool
    hard_sigmoid
    hard_swish
    identity
    layer_normalization
    leaky_relu
    log
    log_softmax
    mat_mul
    max
    max_pool
    min
    mul
    neg
    not
    pad
    pow
    quantize_linear
    reciprocal
    reduce_max
    reduce_mean
    reduce_sum
    relu
    reshape
    shape
    sigmoid
    slice
    softmax
    split
    sqrt
    squeeze
    sub
    tanh
    transpose
    unsqueeze
}
