//! `verify`: whether what is deployed computes what was trained.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;

/// Compares, value by value and on images of a data set, the model as it was trained or calibrated (in simulation) with the exported file
/// on libtorch, with the file on ONNX Runtime without fusion, and its outputs with those of the engine. It fails, and names the first value,
/// where one is further off than its budget: what was lost between training and deployment cannot pass unseen.
///
/// Of an engine of ONNX Runtime what each integer kernel gives is compared too. TensorRT and libtorch show the outputs of an engine alone:
/// `engine_values` says when the engine is built once more, with what convolutions and matrix products read as outputs.
///
/// Outputs: `metrics` (JSON: the worst figures), `values` (JSON: SQNR in dB and cosine of every value, for each comparison).
/// What is infinite alike or NaN on both sides is no difference; on one side alone it is refused, whatever the limits.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The model before its export: float, PTQ or QAT.
    pub model: ModelSource,
    /// The exported file, `model` of `export-onnx`.
    pub onnx: Ref,
    /// The engine that was built from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Ref>,
    /// Data whose images are run; its random transforms are not applied.
    pub data: Ref,
    /// Images used, chosen at random by the seed.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1))]
    pub samples: u64,
    /// Images a step, where the model's batch is free.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Least signal-to-noise ratio of each value and of the outputs, dB. Rounding at ties alone gives 30 and more.
    #[serde(default = "default_sqnr")]
    #[schemars(range(min = 0.0, max = 200.0))]
    pub min_sqnr_db: f64,
    /// Least share of images for which the highest output stays the same; asked of outputs `[N, classes]` alone.
    #[serde(default = "default_agreement")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_agreement: f64,
    /// When inner values of an engine of TensorRT or libtorch are compared too. That takes as long as building it: the second engine is built from the same file
    /// with the same flags, for as many of the images as there is room for (about 17 million values).
    /// Default: `on-failure`.
    #[serde(default, skip_serializing_if = "EngineValues::is_default")]
    pub engine_values: EngineValues,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

/// When inner values of an engine that shows outputs alone are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EngineValues {
    /// Where its outputs are refused, so that the first value that is lost is named.
    #[default]
    OnFailure,
    /// In any case: `values` and the metric `engine_values_sqnr_db` have them.
    Always,
    /// Not at all.
    Never,
}

impl EngineValues {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn default_samples() -> u64 {
    64
}

fn default_batch_size() -> u32 {
    16
}

fn default_sqnr() -> f64 {
    20.0
}

fn default_agreement() -> f64 {
    0.95
}

impl Contract for Verify {
    const NAME: &'static str = "verify";
    const VERSION: u32 = 4;
    const ABOUT: &'static str =
        "whether export and engine compute what was trained, value by value";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.push(Input::reference("onnx", &self.onnx, &[PortType::Model]));
        if let Some(engine) = &self.engine {
            inputs.push(Input::reference("engine", engine, &[PortType::Engine]));
        }
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("metrics", PortType::Metrics, "metrics.json"),
            Output::new("values", PortType::File, "values.json"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        vec![Fact::Cpu, Fact::OnnxRuntime, self.device.fact()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        problems.extend(self.device.check());
        if self.engine.is_none() && self.engine_values != EngineValues::default() {
            problems.push(
                Problem::at("engine_values", "`engine_values` without `engine`")
                    .label("no engine is compared")
                    .help("give `engine`, or leave this out"),
            );
        }
        problems
    }
}
