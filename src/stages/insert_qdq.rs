//! `insert-qdq`: QuantizeLinear / DequantizeLinear pairs where a runtime wants them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calibrate::Method;
use super::contract::{Contract, Input, InputPath, Output, PortType, Problem, Ref};
use super::formats::{self, ActivationType, Activations, Granularity, Weights};
use super::model_source::ModelSource;
use super::tensorrt_version::{self, TensorrtVersion};

/// Folds BatchNormalization and writes Q/DQ pairs by the rules of the target runtime.
///
/// Outputs: `model` (ONNX with Q/DQ; weights still float, so that it can be fine-tuned), `plan`
/// (JSON: which tensors and layers were quantized, by [which rule](placement.md), and why others were not).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InsertQdq {
    /// The float model that was calibrated.
    pub model: ModelSource,
    /// Ranges of its tensors; needed unless activations stay float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<RangesSource>,
    /// Which method's ranges to take.
    #[serde(default = "default_method")]
    pub method: Method,
    /// Runtime whose rules of placement and types hold.
    pub target: Target,
    /// TensorRT that builds the engine, `"8.5"` to `"11.0"`; with target `tensorrt` only. Default: the newest. Until 10.1 the weights of
    /// ConvTranspose have their scales along the input channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensorrt_version: Option<String>,
    /// Quantize only these layers: node names, globs (`layer1.*`), operators (`op:Conv`), all between two nodes (`between:A:B`), what
    /// computes an output from the last layers on (`output:NAME`), `first`, `last` ([patterns](placement.md#patterns)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub include: Option<Vec<String>>,
    /// Leave these layers in float; same forms. Wins over `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Output `sensitivity` of a `sensitivity` stage of this model; with `float_layers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Ref>,
    /// Leave this many of the most sensitive layers in float, beside those of `exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float_layers: Option<u32>,
    /// Leave the layers that a `search` stage chose in float, beside those of `exclude`: its output `chosen`, or that file as it was kept.
    /// Where it chose the float model, the model is written without pairs, with a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_from: Option<LayersSource>,
    /// A scale for each output channel of a weight instead of one for all.
    #[serde(default = "super::contract::yes")]
    pub per_channel: bool,
    /// How weights are quantized; [which runtime takes what](formats.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// How activations are quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<Activations>,
    /// What becomes of BatchNormalization behind layers. `folded`: it is part of the layer's weights. `kept`: it stays, so that `finetune`
    /// trains it; `export-onnx` folds it into the scales of the weights, whose integers stay as they are. Default: `folded`.
    #[serde(default, skip_serializing_if = "BatchNorm::is_folded")]
    pub batch_norm: BatchNorm,
}

/// What becomes of BatchNormalization behind layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchNorm {
    /// It is folded before Q/DQ pairs are inserted.
    #[default]
    Folded,
    /// It stays behind layers whose weights have a scale for each channel.
    Kept,
}

impl BatchNorm {
    fn is_folded(&self) -> bool {
        *self == Self::Folded
    }
}

/// Ranges: an output of another stage, or a file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RangesSource {
    /// `"stage.ranges"`: of a `calibrate` stage, or of a `command` with an output of that type.
    Stage(Ref),
    /// `{ file = "ranges.json" }`: a file, in [this form](ranges.md).
    File(RangesFile),
}

/// A file of ranges of the user's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangesFile {
    /// The file, relative to the pipeline file.
    pub file: InputPath,
}

impl RangesSource {
    fn input(&self) -> Input {
        match self {
            Self::Stage(reference) => Input::reference("ranges", reference, &[PortType::Ranges]),
            Self::File(file) => Input {
                accepts: &[PortType::Ranges],
                ..Input::path("ranges", "ranges.file", &file.file)
            },
        }
    }
}

/// Layers to leave in float: an output of another stage, or a file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LayersSource {
    /// `"stage.chosen"`: of a `search` stage.
    Stage(Ref),
    /// `{ file = "chosen.toml" }`: that output, as it was kept.
    File(LayersFile),
}

/// A file of layers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayersFile {
    /// The file, relative to the pipeline file.
    pub file: InputPath,
}

impl LayersSource {
    fn input(&self) -> Input {
        const PORT: &str = "exclude_from";
        match self {
            Self::Stage(reference) => Input::reference(PORT, reference, &[PortType::File]),
            Self::File(file) => Input::path(PORT, "exclude_from.file", &file.file),
        }
    }
}

/// Runtime whose rules of placement and types hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// TensorRT: int8, zero point 0; inputs and weights of Conv and Gemm, the identity branch of residual Adds.
    Tensorrt,
    /// TensorRT-RTX: as the newest TensorRT, but ConvTranspose and AveragePool stay float.
    #[serde(rename = "tensorrt-rtx")]
    TensorrtRtx,
    /// ONNX Runtime on CPUs: uint8 (zero point 128 at the same scales; 0 where no value is negative), also on outputs, int32 bias, so that all fuses to QLinear operators.
    Onnxruntime,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tensorrt, Self::TensorrtRtx, Self::Onnxruntime];

    /// The word in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensorrt => "tensorrt",
            Self::TensorrtRtx => "tensorrt-rtx",
            Self::Onnxruntime => "onnxruntime",
        }
    }
}

impl InsertQdq {
    /// The TensorRT whose rules hold.
    ///
    /// # Errors
    /// What was expected of `tensorrt_version`.
    pub fn version(&self) -> Result<TensorrtVersion, String> {
        tensorrt_version::of(self.tensorrt_version.as_deref())
    }
}

pub(super) fn default_method() -> Method {
    Method::Mse
}

impl Contract for InsertQdq {
    const NAME: &'static str = "insert-qdq";
    const VERSION: u32 = 12;
    const ABOUT: &'static str = "insert Q/DQ pairs by a runtime's rules (PTQ)";

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.extend(self.ranges.as_ref().map(RangesSource::input));
        if let Some(sensitivity) = &self.sensitivity {
            inputs.push(Input::reference("sensitivity", sensitivity, &[PortType::File]));
        }
        inputs.extend(self.exclude_from.as_ref().map(LayersSource::input));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("model", PortType::Model, "model.onnx"),
            Output::new("plan", PortType::File, "plan.json"),
        ]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems =
            formats::check(self.weights, self.activations, self.per_channel, self.target);
        let float = |activations: Activations| activations.dtype == Some(ActivationType::Float);
        if self.ranges.is_none() && !self.activations.is_some_and(float) {
            problems.push(
                Problem::at("", "`ranges` is missing: by them activations are quantized")
                    .help("add ranges = \"STAGE.ranges\", the output of a `calibrate` stage, or quantize weights only: activations = { type = \"float\" }"),
            );
        }
        problems.extend(self.sensitivity_problems());
        problems.extend(tensorrt_version::problems(self.tensorrt_version.as_deref(), self.target));
        problems.extend(self.batch_norm_problem());
        problems
    }
}

impl InsertQdq {
    fn batch_norm_problem(&self) -> Option<Problem> {
        let weights = self.weights.unwrap_or_default();
        let each = match weights.granularity {
            Some(granularity) => granularity == Granularity::PerChannel,
            None => self.per_channel,
        };
        (self.batch_norm == BatchNorm::Kept && !(each && weights.symmetric)).then(|| {
            Problem::at("batch_norm", "BatchNormalization is folded into the symmetric scales of each channel's weights: with others it cannot be kept")
                .help("quantize weights symmetrically with a scale for each channel, or write batch_norm = \"folded\"")
        })
    }

    fn sensitivity_problems(&self) -> Vec<Problem> {
        match (&self.sensitivity, self.float_layers) {
            (Some(_), None) => vec![
                Problem::at("sensitivity", "nothing says how many layers stay in float")
                    .help("add float_layers = 3, or as many as are wanted"),
            ],
            (None, Some(_)) => vec![
                Problem::at("float_layers", "nothing says which layers are the most sensitive")
                    .help("add sensitivity = \"STAGE.sensitivity\", the output of a `sensitivity` stage"),
            ],
            _ => Vec::new(),
        }
    }
}
