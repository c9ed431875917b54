//! TensorRT and TensorRT-RTX: int8 with zero point 0, pairs on what layers read.
//! <https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html>.
//!
//! Biases and outputs of the graph stay float. TensorRT-RTX takes the same graphs as the newest TensorRT, and has fewer integer kernels.

use qpipe::stages::insert_qdq::Target;

use super::rules::{concat, float, moving, pooling, residual, rtx, weighted};
use super::{Policy, Rule};
use crate::quant::scheme::INT8;

/// In the order in which they are asked.
const RULES: &[&Rule] = &[
    &weighted::TRANSPOSED,
    &weighted::GROUPED,
    &weighted::LAYER,
    &weighted::COMPUTED,
    &residual::IDENTITY,
    &pooling::GLOBAL,
    &pooling::AVERAGE,
    // What reads a concatenation is quantized by now.
    &concat::ONE_SCALE,
    &moving::COMMUTING,
    &float::FUSED,
    &float::ACTIVATION,
    &float::NORMALIZATION,
];

/// The same with what TensorRT-RTX computes in float.
const RTX_RULES: &[&Rule] = &[
    &rtx::TRANSPOSED,
    &weighted::GROUPED,
    &weighted::LAYER,
    &weighted::COMPUTED,
    &residual::IDENTITY,
    &pooling::GLOBAL,
    &rtx::AVERAGE,
    // What reads a concatenation is quantized by now.
    &concat::ONE_SCALE,
    &moving::COMMUTING,
    &float::FUSED,
    &float::ACTIVATION,
    &float::NORMALIZATION,
];

pub(super) const POLICY: Policy = Policy {
    target: Target::Tensorrt,
    name: "tensorrt",
    rules: RULES,
    scheme: |_, _| INT8,
    range_of: |_, name| name,
    bounds: |_, _| None,
};

pub(super) const RTX: Policy =
    Policy { target: Target::TensorrtRtx, name: "tensorrt-rtx", rules: RTX_RULES, ..POLICY };
