//! ONNX Runtime on CPUs: pairs on inputs and outputs, so that each layer between them is one
//! integer kernel (QLinearConv, QLinearAdd, QLinearGlobalAveragePool, QGemm).
//!
//! Activations are uint8: with int8 ones its convolutions are no faster than float. A value that may be negative
//! has the zero point 128 (the values of int8 with zero point 0, and the same scale `amax / 127`). A value
//! that is never negative has zero point 0 and scale `amax / 255`: only then does ONNX Runtime drop the
//! Relu before it and fuse the convolution (with zero point 128 it runs half of a ResNet's convolutions
//! in float), and its range has twice the steps.
//!
//! The pair stands behind the activation that is fused into its layer (Relu, Clip); all readers of the value
//! read it quantized, also those that are left in float, else the layer before them could not be fused. Max pooling
//! and changes of shape keep their input's scale, as ONNX Runtime demands. Outputs of the graph stay float.

use qpipe::stages::insert_qdq::Target;

use super::rules::{concat, float, gate, integer, moving, pooling, residual, stack, weighted};
use super::{Policy, Rule};
use crate::quant::scheme::{UINT8, UINT8_POSITIVE};

/// In the order in which they are asked.
const RULES: &[&Rule] = &[
    &integer::OUTPUT,
    &weighted::NO_TRANSPOSED,
    &integer::GROUPED,
    &integer::CONV,
    &stack::ONE_SCALE,
    &integer::MATMUL,
    &integer::COMPUTED,
    &residual::FLOAT,
    &residual::BOTH,
    &gate::MUL,
    &gate::SIGMOID,
    &pooling::INTEGER,
    // What poolings read is quantized by now.
    &concat::EACH_SCALE,
    // Which values are integers is known by now.
    &moving::KEEPS_SCALE,
    &float::FUSED,
    &float::UNGATED,
    &float::NORMALIZATION,
];

pub(super) const POLICY: Policy = Policy {
    target: Target::Onnxruntime,
    name: "onnxruntime",
    rules: RULES,
    scheme: |view, name| if view.is_positive(name) { UINT8_POSITIVE } else { UINT8 },
    range_of: |view, name| view.origin(name),
    // A gate that a method clips would scale down the largest values, which it lets through whole.
    bounds: |view, name| view.bounds(name),
};
