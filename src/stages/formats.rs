//! Types of quantized weights and activations: the tables `weights` and `activations` of `insert-qdq`.
//!
//! What a runtime cannot take is refused here, before anything runs. Sources: TensorRT's quantization schemes
//! (<https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-schemes.html>), and what ONNX Runtime 1.32
//! was seen to do on a CPU with each combination (`docs/formats.md`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::Problem;
use super::insert_qdq::Target;

/// Blocks that TensorRT's int4 kernels take.
const TENSORRT_BLOCKS: [u32; 2] = [64, 128];

/// How weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Type of the elements.
    #[serde(rename = "type", default)]
    pub dtype: WeightType,
    /// Which elements share a scale. Default: as `per_channel` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// Elements of a block, along the input channels; default 32. A layer with fewer input channels than that has a scale for each output
    /// channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 65536))]
    pub block_size: Option<u32>,
    /// Of int8 use −64 to 63 only, at scale amax / 63: sums of ONNX Runtime's products on x86 processors without VNNI then do not saturate, and
    /// `build-engine` keeps its fast kernels. Called so by ONNX Runtime and PyTorch as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reduce_range: bool,
    /// Zero point 0 and scale amax / 127 (int4: / 7, float8e4m3fn: / 448). Otherwise the range from least to greatest value, 0 included, fills
    /// all integers.
    #[serde(default = "super::contract::yes")]
    pub symmetric: bool,
}

/// Type of quantized weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// Integers of 8 bits, −128 to 127.
    #[default]
    Int8,
    /// Integers of 4 bits, −8 to 7, two to a byte; the model is of opset 21.
    Int4,
    /// Floats of 8 bits, 4 of them exponent, ±448; the model is of opset 19.
    Float8e4m3fn,
}

/// Which elements of a weight share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// All.
    PerTensor,
    /// Those of an output channel.
    PerChannel,
    /// `block_size` of an output channel, along the input channels; the model is of opset 21.
    PerBlock,
}

/// How computed values are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Activations {
    /// Type of the elements. Default: the target's, int8 for TensorRT and uint8 for ONNX Runtime.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<ActivationType>,
    /// A range around zero, ±`amax`; of uint8 with zero point 128, or 0 where no value is negative. Otherwise from the least to the greatest value
    /// that calibration saw, both cut at ±`amax`, so that all integers are used.
    #[serde(default = "super::contract::yes")]
    pub symmetric: bool,
}

/// Type of quantized activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActivationType {
    /// Integers of 8 bits, −128 to 127.
    Int8,
    /// Integers of 8 bits, 0 to 255.
    Uint8,
    /// Floats of 8 bits, 4 of them exponent, ±448; the model is of opset 19.
    Float8e4m3fn,
    /// Not quantized: only weights are (weight-only quantization).
    Float,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            dtype: WeightType::Int8,
            granularity: None,
            block_size: None,
            reduce_range: false,
            symmetric: true,
        }
    }
}

impl Default for Activations {
    fn default() -> Self {
        Self { dtype: None, symmetric: true }
    }
}

/// What is wrong with the tables, by themselves and for a runtime.
pub(super) fn check(
    weights: Option<Weights>,
    activations: Option<Activations>,
    per_channel: bool,
    target: Target,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(weights) = weights {
        problems.extend(consistent(weights, per_channel));
    }
    let (weights, activations) = (weights.unwrap_or_default(), activations.unwrap_or_default());
    if activations.dtype == Some(ActivationType::Float8e4m3fn) && !activations.symmetric {
        problems.push(no_zero_point("activations.symmetric"));
    }
    if activations.dtype == Some(ActivationType::Float) && !activations.symmetric {
        problems.push(
            Problem::at("activations.symmetric", "floats have no zero point")
                .help("remove `symmetric`: activations of type \"float\" are not quantized"),
        );
    }
    problems.extend(match target {
        Target::Tensorrt | Target::TensorrtRtx => tensorrt(weights, activations),
        Target::Onnxruntime => onnxruntime(weights, activations),
    });
    problems
}

fn no_zero_point(field: &str) -> Problem {
    Problem::at(field, "float8e4m3fn has no zero point other than 0")
        .help("remove `symmetric`, or take a type of integers")
}

fn consistent(weights: Weights, per_channel: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if weights.dtype == WeightType::Float8e4m3fn && !weights.symmetric {
        problems.push(no_zero_point("weights.symmetric"));
    }
    if !per_channel && weights.granularity.is_some() {
        problems.push(
            Problem::at(
                "per_channel",
                "`weights.granularity` says already which elements share a scale",
            )
            .help("remove `per_channel`"),
        );
    }
    if weights.reduce_range && weights.dtype != WeightType::Int8 {
        problems.push(
            Problem::at("weights.reduce_range", "only int8 has a range to reduce")
                .help("remove `reduce_range`"),
        );
    }
    if weights.block_size.is_some() && weights.granularity != Some(Granularity::PerBlock) {
        problems.push(
            Problem::at("weights.block_size", "scales are not those of blocks")
                .help("add granularity = \"per-block\", or remove `block_size`"),
        );
    }
    problems
}

/// TensorRT: symmetric only; int4 for weights only and in blocks, both inputs of a kernel in one type.
fn tensorrt(weights: Weights, activations: Activations) -> Vec<Problem> {
    let mut problems = Vec::new();
    if weights.reduce_range && weights.dtype == WeightType::Int8 {
        problems.push(
            Problem::at(
                "weights.reduce_range",
                "TensorRT's sums are of 32 bits: a bit of each weight would be lost for nothing",
            )
            .help("remove `reduce_range`, or write false"),
        );
    }
    if !weights.symmetric && weights.dtype != WeightType::Float8e4m3fn {
        problems.push(
            Problem::at("weights.symmetric", "TensorRT takes the zero point 0 only")
                .help("remove `symmetric`"),
        );
    }
    if activations.dtype == Some(ActivationType::Uint8) {
        problems.push(
            Problem::at("activations.type", "TensorRT has no uint8").help("write type = \"int8\""),
        );
    } else if !activations.symmetric
        && matches!(activations.dtype, None | Some(ActivationType::Int8))
    {
        problems.push(
            Problem::at("activations.symmetric", "TensorRT takes the zero point 0 only")
                .help("remove `symmetric`"),
        );
    }
    let activation = activations.dtype.unwrap_or(ActivationType::Int8);
    let blocks = weights.granularity == Some(Granularity::PerBlock);
    if weights.dtype == WeightType::Int4 {
        if activation != ActivationType::Float {
            problems.push(
                Problem::at(
                    "weights.type",
                    "TensorRT takes int4 for weights only, with float activations",
                )
                .help("add activations = { type = \"float\" }"),
            );
        }
        let size = weights.block_size.unwrap_or(32);
        if !blocks || !TENSORRT_BLOCKS.contains(&size) {
            problems.push(
                Problem::at("weights", "TensorRT takes int4 in blocks of 64 or 128 only")
                    .help("write granularity = \"per-block\", block_size = 128"),
            );
        }
        return problems;
    }
    if blocks {
        problems.push(
            Problem::at("weights.granularity", "TensorRT takes blocks of int4 only")
                .help("write \"per-channel\", or type = \"int4\" with float activations"),
        );
    }
    let float8 = weights.dtype == WeightType::Float8e4m3fn;
    if activation != ActivationType::Float && float8 != (activation == ActivationType::Float8e4m3fn)
    {
        let (field, table) =
            if float8 { ("weights.type", "activations") } else { ("activations.type", "weights") };
        problems.push(
            Problem::at(
                field,
                "TensorRT's kernels take both inputs in one type: int8 or float8e4m3fn",
            )
            .help(format!("add {table} = {{ type = \"float8e4m3fn\" }}")),
        );
    }
    problems
}

/// ONNX Runtime on CPUs runs what it has no integer kernel for in float. Blocks of int8 it fuses to integer kernels that then stop at their scales.
fn onnxruntime(weights: Weights, activations: Activations) -> Vec<Problem> {
    let integers =
        matches!(activations.dtype, None | Some(ActivationType::Int8 | ActivationType::Uint8));
    let blocks = weights.granularity == Some(Granularity::PerBlock);
    if integers && blocks && weights.dtype == WeightType::Int8 {
        return vec![
            Problem::at(
                "weights.granularity",
                "ONNX Runtime's integer kernels do not know blocks of int8, and stop at them",
            )
            .help("leave activations in float (activations = { type = \"float\" }), or write \"per-channel\""),
        ];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(target: Target, weights: &str, activations: &str) -> Vec<String> {
        let weights: Weights = toml::from_str(weights).unwrap();
        let activations: Activations = toml::from_str(activations).unwrap();
        let found = check(Some(weights), Some(activations), true, target);
        found
            .into_iter()
            .map(|problem| format!("{}: {}", problem.field.join("."), problem.message))
            .collect()
    }

    #[test]
    fn what_each_runtime_takes_passes() {
        let float8 = "type = 'float8e4m3fn'";
        let blocks = "type = 'int4'\ngranularity = 'per-block'\nblock_size = 128";
        for (target, weights, activations) in [
            (Target::Tensorrt, "", ""),
            (Target::Tensorrt, "", "type = 'float'"),
            (Target::Tensorrt, float8, float8),
            (Target::Tensorrt, float8, "type = 'float'"),
            (Target::Tensorrt, blocks, "type = 'float'"),
            (Target::Onnxruntime, "type = 'int4'\nsymmetric = false", ""),
            (Target::Onnxruntime, blocks, ""),
            (Target::Onnxruntime, float8, "symmetric = false"),
            (Target::Onnxruntime, "granularity = 'per-block'", "type = 'float'"),
            (Target::Onnxruntime, "symmetric = false", ""),
            (Target::Onnxruntime, "symmetric = false\nreduce_range = true", ""),
            (Target::Tensorrt, "reduce_range = false", ""),
            (Target::Onnxruntime, "symmetric = false\ngranularity = 'per-tensor'", ""),
        ] {
            assert_eq!(problems(target, weights, activations), [""; 0], "{target:?} {weights}");
        }
    }

    #[test]
    fn what_a_runtime_cannot_take_is_refused_with_the_reason() {
        let float8 = "type = 'float8e4m3fn'";
        for (target, weights, activations, expected) in [
            (
                Target::Tensorrt,
                "symmetric = false",
                "",
                "weights.symmetric: TensorRT takes the zero point 0",
            ),
            (
                Target::Tensorrt,
                "",
                "symmetric = false",
                "activations.symmetric: TensorRT takes the zero point 0",
            ),
            (Target::Tensorrt, "", "type = 'uint8'", "activations.type: TensorRT has no uint8"),
            (
                Target::Tensorrt,
                "reduce_range = true",
                "",
                "weights.reduce_range: TensorRT's sums are of 32 bits",
            ),
            (
                Target::Onnxruntime,
                "type = 'int4'\nreduce_range = true",
                "",
                "weights.reduce_range: only int8 has a range to reduce",
            ),
            (
                Target::Tensorrt,
                float8,
                "",
                "weights.type: TensorRT's kernels take both inputs in one type",
            ),
            (Target::Tensorrt, "", float8, "activations.type: TensorRT's kernels take both"),
            (
                Target::Tensorrt,
                "granularity = 'per-block'",
                "",
                "weights.granularity: TensorRT takes blocks of int4",
            ),
            (
                Target::Tensorrt,
                "type = 'int4'\ngranularity = 'per-block'\nblock_size = 64",
                "",
                "weights.type: TensorRT takes int4 for weights only",
            ),
            (
                Target::Tensorrt,
                "type = 'int4'",
                "type = 'float'",
                "weights: TensorRT takes int4 in blocks of 64 or 128",
            ),
            (
                Target::Onnxruntime,
                "granularity = 'per-block'",
                "",
                "weights.granularity: ONNX Runtime's integer kernels",
            ),
            (
                Target::Onnxruntime,
                "type = 'float8e4m3fn'\nsymmetric = false",
                "",
                "weights.symmetric: float8e4m3fn has no zero point",
            ),
            (
                Target::Onnxruntime,
                "",
                "type = 'float8e4m3fn'\nsymmetric = false",
                "activations.symmetric: float8e4m3fn",
            ),
            (
                Target::Onnxruntime,
                "",
                "type = 'float'\nsymmetric = false",
                "activations.symmetric: floats have no",
            ),
            (
                Target::Onnxruntime,
                "block_size = 32",
                "",
                "weights.block_size: scales are not those of blocks",
            ),
        ] {
            let found = problems(target, weights, activations);
            let [found] = &found[..] else { panic!("{weights} {activations}: {found:?}") };
            assert!(found.starts_with(expected), "{found}, expected {expected}");
        }
    }

    #[test]
    fn two_keys_that_say_the_same_are_refused() {
        let weights = Weights { granularity: Some(Granularity::PerTensor), ..Weights::default() };
        let found = check(Some(weights), None, false, Target::Tensorrt);
        assert_eq!(found[0].field, ["per_channel"]);
    }
}
