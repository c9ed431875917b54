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
        /// The files.
        #[cfg(test)]
        pub const FILES: &[&str] = &[$(stringify!($file)),*];
    };
}

pub use batch_normalization::running_statistics;

operators! {
    abs
    add
    and
    arg_max
    arg_min
    average_pool
    batch_normalization
    bit_shift
    cast
    cast_like
    ceil
    celu
    clip
    concat
    constant_of_shape
    conv
    conv_integer
    conv_transpose
    cos
    cum_sum
    depth_to_space
    dequantize_linear
    div
    dropout
    dynamic_quantize_linear
    einsum
    elu
    equal
    erf
    exp
    expand
    flatten
    floor
    gather
    gather_elements
    gather_nd
    gelu
    gemm
    global_average_pool
    global_lp_pool
    global_max_pool
    greater
    greater_or_equal
    grid_sample
    group_normalization
    hard_sigmoid
    hard_swish
    identity
    instance_normalization
    is_inf
    is_nan
    layer_normalization
    leaky_relu
    less
    less_or_equal
    log
    log_softmax
    lp_normalization
    lp_pool
    lrn
    mat_mul
    mat_mul_integer
    max
    max_pool
    mean
    min
    mish
    modulo
    mul
    neg
    non_max_suppression
    non_zero
    not
    one_hot
    or
    p_relu
    pad
    pow
    q_linear_conv
    q_linear_mat_mul
    quantize_linear
    r#where
    range
    reciprocal
    reduce_l1
    reduce_l2
    reduce_log_sum
    reduce_log_sum_exp
    reduce_max
    reduce_mean
    reduce_min
    reduce_prod
    reduce_sum
    reduce_sum_square
    relu
    reshape
    resize
    rms_normalization
    round
    scatter
    scatter_elements
    scatter_nd
    selu
    shape
    sigmoid
    sign
    sin
    size
    slice
    softmax
    softplus
    softsign
    space_to_depth
    split
    sqrt
    squeeze
    sub
    sum
    swish
    tanh
    tile
    top_k
    transpose
    trilu
    unsqueeze
    upsample
    xor
}
