//! `sensitivity`: what quantizing each layer costs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calibrate::Method;
use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::formats::{self, Activations, Weights};
use super::insert_qdq::Target;
use super::model_source::ModelSource;
use super::tensorrt_version::{self, TensorrtVersion};

/// Measures what quantizing each layer costs, in simulation: with that layer alone quantized, and with all layers quantized but that one;
/// and how the error grows along the fully quantized graph. What comes before a layer is computed once for all.
///
/// Outputs: `sensitivity` (JSON, the most sensitive layer first: SQNR in dB and cosine of the outputs against the float model's, share
/// of samples whose highest logit stays, top-1, loss), `table` (Markdown), `picture` (SVG). `insert-qdq` leaves the first layers of
/// `sensitivity` in float with `float_layers`. An SQNR of `null` says that nothing differs; one of -999 dB that outputs are NaN or infinite
/// where the float model's are not (`not_finite` has their count, and a warning names the layer), or noise without any signal.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// The float model that was calibrated.
    pub model: ModelSource,
    /// Ranges of its tensors.
    pub ranges: Ref,
    /// Which method's ranges to take.
    #[serde(default = "super::insert_qdq::default_method")]
    pub method: Method,
    /// Runtime whose rules of placement and types hold.
    pub target: Target,
    /// TensorRT that builds the engine, as in `insert-qdq`; with target `tensorrt` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensorrt_version: Option<String>,
    /// Look only at these layers: node names, globs (`layer1.*`), operators (`op:Conv`) and the other [patterns](placement.md#patterns).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub include: Option<Vec<String>>,
    /// Leave these layers in float throughout; same forms. Wins over `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// A scale for each output channel of a weight instead of one for all.
    #[serde(default = "super::contract::yes")]
    pub per_channel: bool,
    /// How weights are quantized, as in `insert-qdq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// How activations are quantized, as in `insert-qdq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<Activations>,
    /// Data on which outputs are compared, with labels or without (then there is no top-1 and no loss); its random transforms are not applied.
    pub data: Ref,
    /// Images used, chosen at random by the seed.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1))]
    pub samples: u64,
    /// Images a step; all values that layers read are in memory for one step.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// What is measured of each layer. `alone`: it is the only one that is quantized. `without`: all are, but for it.
    #[serde(default = "both")]
    #[schemars(length(min = 1))]
    pub measure: Vec<Measure>,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

/// What is measured of a layer.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// It is the only one that is quantized.
    Alone,
    /// All are quantized, but for it.
    Without,
}

fn default_samples() -> u64 {
    256
}

fn default_batch_size() -> u32 {
    16
}

fn both() -> Vec<Measure> {
    vec![Measure::Alone, Measure::Without]
}

impl Sensitivity {
    /// The TensorRT whose rules hold.
    ///
    /// # Errors
    /// What was expected of `tensorrt_version`.
    pub fn version(&self) -> Result<TensorrtVersion, String> {
        tensorrt_version::of(self.tensorrt_version.as_deref())
    }
}

impl Contract for Sensitivity {
    const NAME: &'static str = "sensitivity";
    const VERSION: u32 = 12;
    const ABOUT: &'static str = "what quantizing each layer costs";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.push(Input::reference("ranges", &self.ranges, &[PortType::Ranges]));
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("sensitivity", PortType::File, "sensitivity.json"),
            Output::new("table", PortType::File, "sensitivity.md"),
            Output::new("picture", PortType::File, "sensitivity.svg"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        vec![self.device.fact()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems =
            formats::check(self.weights, self.activations, self.per_channel, self.target);
        problems.extend(self.device.check());
        problems.extend(tensorrt_version::problems(self.tensorrt_version.as_deref(), self.target));
        problems
    }
}
