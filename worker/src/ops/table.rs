//! The table of operators.

use std::ops::RangeInclusive;

use super::kernel::Op;
use super::{
    activation, arithmetic, batch_norm, conv, gemm, global_pool, identity, layer_norm, part, pool,
    quantize, rearrange, reduce, reshape, shape, softmax, standard, unary,
};

/// Operator sets whose models are executed.
pub const OPSETS: RangeInclusive<i64> = 1..=25;

/// All operators of the standard's own domain that are executed, except `Constant`, which the
/// interpreter takes for an initializer.
const OPS: &[Op] = &[
    activation::RELU,
    activation::SIGMOID,
    activation::TANH,
    activation::ERF,
    activation::LEAKY_RELU,
    activation::HARD_SIGMOID,
    activation::HARD_SWISH,
    activation::GELU,
    activation::CLIP,
    arithmetic::ADD,
    arithmetic::SUB,
    arithmetic::MUL,
    arithmetic::DIV,
    arithmetic::POW,
    arithmetic::MIN,
    arithmetic::MAX,
    batch_norm::BATCH_NORMALIZATION,
    conv::CONV,
    gemm::GEMM,
    gemm::MAT_MUL,
    global_pool::GLOBAL_AVERAGE_POOL,
    global_pool::GLOBAL_MAX_POOL,
    identity::IDENTITY,
    identity::DROPOUT,
    pool::MAX_POOL,
    pool::AVERAGE_POOL,
    quantize::QUANTIZE_LINEAR,
    quantize::DEQUANTIZE_LINEAR,
    rearrange::TRANSPOSE,
    rearrange::SQUEEZE,
    rearrange::UNSQUEEZE,
    rearrange::CONCAT,
    rearrange::GATHER,
    reduce::REDUCE_MEAN,
    reduce::REDUCE_SUM,
    reduce::REDUCE_MAX,
    reshape::RESHAPE,
    reshape::FLATTEN,
    shape::SHAPE,
    shape::EXPAND,
    shape::CONSTANT_OF_SHAPE,
    softmax::SOFTMAX,
    softmax::LOG_SOFTMAX,
    layer_norm::LAYER_NORMALIZATION,
    part::SLICE,
    part::SPLIT,
    part::PAD,
    unary::NEG,
    unary::ABS,
    unary::SQRT,
    unary::EXP,
    unary::LOG,
    unary::RECIPROCAL,
];

/// All operators.
pub fn all() -> impl Iterator<Item = &'static Op> {
    OPS.iter().chain(standard::ALL.iter().copied())
}

/// The operator, if `opset` has it.
pub fn find(op_type: &str, opset: i64) -> Option<&'static Op> {
    all().find(|op| op.name == op_type && op.since[0] <= opset)
}

/// The opset from which `op_type` exists here; `None` where it is not in the table.
pub fn first_version(op_type: &str) -> Option<i64> {
    all().find(|op| op.name == op_type).map(|op| op.since[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_versions_ascend() {
        for (index, op) in all().enumerate() {
            assert!(all().take(index).all(|other| other.name != op.name), "{}", op.name);
            assert!(op.since.is_sorted_by(|a, b| a < b), "{}", op.name);
        }
    }

    #[test]
    fn an_operator_is_found_only_in_its_opsets() {
        assert!(find("Gelu", 19).is_none());
        assert!(find("Gelu", 20).is_some());
        assert!(find("NoSuchOp", 20).is_none());
    }
}
