//! `equalize`: ranges brought together before calibration, between the channels of weights or between activations and weights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::model_source::ModelSource;

/// Equalization of a float model, before it is calibrated: factors are moved between layers so that less is lost in quantization. The model
/// computes the same (but see `relu6` and `absorb_bias`). BatchNormalization is folded first. Give `calibrate`, `insert-qdq` and `sensitivity` its
/// output, not the model before: ranges of tensors change.
///
/// `method = "cross-layer"` (Nagel et al. 2019): channels between two layers are divided in the first and multiplied in the second, so that all
/// channels of a weight have like ranges. A scale for a whole weight (`per_channel = false`) loses less; it gains little where each channel has its
/// own scale. Between the two layers may stand Relu, LeakyRelu, PRelu, poolings and Flatten; layers at both sides of a residual Add or of another
/// activation stay as they are.
///
/// `method = "smoothquant"` (Xiao et al. 2023): input channels of layers that have outliers are divided in what makes them (a normalization, or a
/// layer before with nothing but linear and ReLU-like operators between) and multiplied in the weights of all layers that read them. For
/// transformers, whose activations have few channels of large values. Needs calibration data.
///
/// Outputs: `model` (ONNX, float). Of `smoothquant` also `groups` (JSON: what was smoothed, by which factors; what was left, and why).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Equalize {
    /// The float model.
    pub model: ModelSource,
    /// What is brought together. Default: `cross-layer`.
    #[serde(default, skip_serializing_if = "Equalization::is_cross_layer")]
    pub method: Equalization,
    /// `cross-layer` only: what becomes of ReLU6 (a Clip from 0 to a bound) between two layers, whose channels cannot be scaled.
    #[serde(default)]
    pub relu6: Relu6,
    /// `cross-layer` only: after it, take the high part `max(0, β - 3 γ)` of a channel's bias before a Relu away and add what it makes to the bias of
    /// the next layer, so that activations have smaller ranges (Nagel et al. 2019, section 4.1.3). `β` and `γ` are the shift and scale of the
    /// BatchNormalization that was folded; with `data`, mean and deviation as measured. Values below the part that is taken away then differ. A
    /// layer with zero padding absorbs nothing.
    #[serde(default, skip_serializing_if = "is_off")]
    pub absorb_bias: bool,
    /// `smoothquant` only: how much of the outliers goes to the weights. A channel is divided by `max|X|^alpha / max|W|^(1 - alpha)`. Default: 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: Option<f64>,
    /// Calibration data; its random transforms are not applied. `smoothquant` needs it; `cross-layer` takes it with `absorb_bias` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Ref>,
    /// Images of `data` used, chosen at random by the seed. Default: 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub samples: Option<u64>,
    /// Images of `data` a step. Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_off(value: &bool) -> bool {
    !*value
}

/// What is brought together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Equalization {
    /// Ranges of the weights of neighbouring layers, channel by channel.
    #[default]
    CrossLayer,
    /// Ranges of activations and of the weights that read them, channel by channel.
    Smoothquant,
}

impl Equalization {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_cross_layer(&self) -> bool {
        *self == Self::CrossLayer
    }
}

/// What becomes of a ReLU6 between two layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Relu6 {
    /// It stays, and the layers around it are left as they are.
    #[default]
    Keep,
    /// It becomes a Relu, and the layers are equalized, as in the paper (Nagel et al. 2019). Values beyond the bound then differ: see by
    /// `evaluate` what that costs in float.
    Relu,
}

impl Equalize {
    /// Share of the outliers that goes to the weights.
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(0.5)
    }

    /// Images of `data` used.
    pub fn samples(&self) -> u64 {
        self.samples.unwrap_or(512)
    }

    /// Images of `data` a step.
    pub fn batch_size(&self) -> u32 {
        self.batch_size.unwrap_or(32)
    }

    fn check_cross_layer(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.alpha.is_some() {
            problems.push(
                Problem::at("alpha", "only method \"smoothquant\" divides activations by it")
                    .help("add method = \"smoothquant\", or leave alpha out"),
            );
        }
        if self.data.is_some() && !self.absorb_bias {
            problems.push(
                Problem::at("data", "method \"cross-layer\" looks at weights alone")
                    .help("add method = \"smoothquant\" or absorb_bias = true, or leave data out"),
            );
        }
        problems
    }

    fn check_smoothquant(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.data.is_none() {
            problems.push(
                Problem::at("method", "\"smoothquant\" needs calibration data to find outliers")
                    .help("add data = \"data.NAME\""),
            );
        }
        if self.absorb_bias {
            problems.push(
                Problem::at("absorb_bias", "only method \"cross-layer\" absorbs biases")
                    .help("leave it out, or equalize in a stage of its own before this one"),
            );
        }
        if self.relu6 != Relu6::Keep {
            problems.push(
                Problem::at("relu6", "only method \"cross-layer\" replaces a ReLU6")
                    .help("leave relu6 out, or equalize in a stage of its own before this one"),
            );
        }
        problems
    }
}

impl Contract for Equalize {
    const NAME: &'static str = "equalize";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "bring ranges of weights, or of activations and weights, together";

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        let data = self.data.iter();
        inputs.extend(data.map(|data| Input::reference("data", data, &[PortType::Data])));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        let mut outputs = vec![Output::new("model", PortType::Model, "model.onnx")];
        if self.method == Equalization::Smoothquant {
            outputs.push(Output::new("groups", PortType::File, "groups.json"));
        }
        outputs
    }

    fn facts(&self) -> Vec<Fact> {
        // Weights alone are computed here; what layers make of data, by libtorch.
        if self.data.is_some() { vec![Fact::Libtorch] } else { Vec::new() }
    }

    fn demand(&self) -> Demand {
        if self.data.is_some() { Demand::Whole } else { Self::DEMAND }
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        problems.extend(match self.method {
            Equalization::CrossLayer => self.check_cross_layer(),
            Equalization::Smoothquant => self.check_smoothquant(),
        });
        if self.data.is_none() {
            let given =
                [("samples", self.samples.is_some()), ("batch_size", self.batch_size.is_some())];
            problems.extend(given.iter().filter(|(_, given)| *given).map(|(key, _)| {
                Problem::at(key, "it is of `data`, which is not given").help("leave it out")
            }));
        }
        problems
    }
}
