//! `reconstruct`: weights and biases of a quantized model that make up for rounding.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;

/// Changes the weights and biases of a model with Q/DQ pairs, layer by layer or block by block, so that it computes what it does without the pairs:
/// learned rounding (`adaround`) and corrected means (`bias_correction`). No labels are used; scales stay. A layer is given what the quantized and
/// already changed layers before it make, so that it makes up for what they lost.
///
/// Images, and what the layers that are at work make of all of them, are in memory: lower `samples` where that is too much.
///
/// Outputs: `model` (ONNX with Q/DQ; with `adaround` float weights that lie on the grid of their scales, so that quantization gives exactly the chosen integers;
/// without it only biases change), `layers` (JSON: of each layer the error with nearest and with learned rounding, the largest shift of a channel's mean as a share
/// of the output's standard deviation, and in `left` what was not done and why).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconstruct {
    /// The model with Q/DQ pairs on float weights: the output of `insert-qdq`.
    pub model: ModelSource,
    /// Calibration data; its random transforms are not applied.
    pub data: Ref,
    /// Images used, chosen at random by the seed.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1))]
    pub samples: u64,
    /// Images that the model is run on at once.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Take the shift of the mean of each output channel from the biases (Nagel et al. 2019): those of convolutions and Gemm, which get one where they have none, and
    /// a constant that is added to all that a MatMul makes. A MatMul without is left, with a warning.
    #[serde(default = "super::contract::yes")]
    pub bias_correction: bool,
    /// Learn which of its two neighbours on the grid each weight goes to (Nagel et al. 2020); `{}` takes all defaults. Without it, weights go to the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaround: Option<Adaround>,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

/// How rounding is learned.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adaround {
    /// What is learned at once. Default: `layer`.
    #[serde(default, skip_serializing_if = "Unit::is_layer")]
    pub unit: Unit,
    /// Probability with which, in a step, an activation is not quantized, element by element (QDrop, Wei et al. 2022): roundings then fit
    /// quantized and float activations alike. Default: 0.5 for blocks, 0 for layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub drop: Option<f64>,
    /// Steps a layer, or a block.
    #[serde(default = "default_iterations")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub iterations: u64,
    /// Learning rate (Adam).
    #[serde(default = "default_lr")]
    #[schemars(range(min = 1e-9, max = 10.0))]
    pub lr: f64,
    /// Images a step.
    #[serde(default = "default_step")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Weight λ of the penalty that drives each weight to one of its neighbours.
    #[serde(default = "default_regularization")]
    #[schemars(range(min = 0.0))]
    pub regularization: f64,
    /// Exponent β of the penalty, at its start and at the end: from flat to steep.
    #[serde(default = "default_beta")]
    #[schemars(inner(range(min = 1.0, max = 100.0)))]
    pub beta: [f64; 2],
    /// Share of the steps at the beginning without penalty.
    #[serde(default = "default_warm_up")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub warm_up: f64,
}

/// What is learned at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// One layer and the activation behind it, as in AdaRound.
    #[default]
    Layer,
    /// All layers of a residual block, from the value where ways part to the addition where they meet and the activation behind it, as in BRECQ (Li et
    /// al. 2021). Layers outside of blocks are learned one by one.
    Block,
}

impl Unit {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_layer(&self) -> bool {
        *self == Self::Layer
    }
}

impl Adaround {
    /// Probability with which an activation is not quantized in a step.
    pub fn drop(&self) -> f64 {
        self.drop.unwrap_or(match self.unit {
            Unit::Layer => 0.0,
            Unit::Block => 0.5,
        })
    }
}

fn default_samples() -> u64 {
    512
}

fn default_batch_size() -> u32 {
    32
}

fn default_iterations() -> u64 {
    1000
}

fn default_lr() -> f64 {
    0.01
}

fn default_step() -> u32 {
    32
}

fn default_regularization() -> f64 {
    0.01
}

fn default_beta() -> [f64; 2] {
    [20.0, 2.0]
}

fn default_warm_up() -> f64 {
    0.2
}

impl Contract for Reconstruct {
    const NAME: &'static str = "reconstruct";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "learn rounding and correct biases of a quantized model (PTQ)";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("model", PortType::Model, "model.onnx"),
            Output::new("layers", PortType::File, "layers.json"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        vec![self.device.fact()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        problems.extend(self.device.check());
        if matches!(self.model, ModelSource::Zoo(_)) {
            problems.push(
                Problem::at("model", "a network of the zoo has no Q/DQ pairs")
                    .help("name the output of an `insert-qdq` stage"),
            );
        }
        if !self.bias_correction && self.adaround.is_none() {
            problems.push(
                Problem::at(
                    "bias_correction",
                    "nothing is left to do: `adaround` is not given either",
                )
                .help("add adaround = {}, or take the model as it is"),
            );
        }
        if let Some(adaround) = &self.adaround {
            let [first, last] = adaround.beta;
            if first < last {
                problems.push(Problem::at(
                    "adaround.beta",
                    format!("it begins at {first} and ends at {last}: expected to fall"),
                ));
            }
        }
        problems
    }
}
