//! `evaluate`: accuracy of a model in simulation, or of a built engine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;

/// Loss, top-1, top-5 and confusion matrix over a data set: of a `model` on libtorch, Q/DQ pairs
/// simulated with the integers that will be deployed, or of an `engine` on the runtime that it was built for. One of the two is given.
///
/// Outputs: `metrics` (JSON), `confusion` (JSON: `classes`, `counts[label][prediction]`), `logits`
/// (NumPy `.npy`, float32 `[N, classes]`, in the data set's order).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The model to simulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSource>,
    /// The engine to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Ref>,
    /// Labelled data; its random transforms are not applied.
    pub data: Ref,
    /// Images a step, where the model's batch is free.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

fn default_batch_size() -> u32 {
    64
}

impl Contract for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "loss, top-1, top-5, confusion matrix of a model or an engine";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.as_ref().map(ModelSource::inputs).unwrap_or_default();
        if let Some(engine) = &self.engine {
            inputs.push(Input::reference("engine", engine, &[PortType::Engine]));
        }
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("metrics", PortType::Metrics, "metrics.json"),
            Output::new("confusion", PortType::File, "confusion.json"),
            Output::new("logits", PortType::File, "logits.npy"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        if self.engine.is_some() {
            vec![Fact::Cpu, Fact::OnnxRuntime]
        } else {
            vec![self.device.fact()]
        }
    }

    fn check(&self) -> Vec<Problem> {
        match (&self.model, &self.engine) {
            (Some(model), None) => model.check().into_iter().chain(self.device.check()).collect(),
            (None, Some(_)) if !self.device.is_auto() => vec![
                Problem::at(
                    "device",
                    "`device` says where libtorch computes; an engine was built for its own",
                )
                .help("leave it out, or evaluate the simulation: model = \"STAGE.model\""),
            ],
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![
                Problem::at("", "nothing to evaluate: expected `model` (simulation) or `engine`")
                    .help("add model = \"STAGE.model\" or engine = \"STAGE.engine\""),
            ],
            (Some(_), Some(_)) => vec![
                Problem::at("engine", "`model` and `engine` exclude each other")
                    .help("use one evaluate stage for the simulation and one for the engine"),
            ],
        }
    }
}
