//! `build-engine`: what a runtime makes of an ONNX file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Fact, Input, Output, PortType, Problem};
use super::model_source::ModelSource;

/// Builds an engine from an ONNX file.
///
/// Outputs: `engine` (a directory: `engine.json` and the backend's files), `layers` (JSON: what the
/// runtime made of each layer and in which type).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildEngine {
    /// The exported model.
    pub model: ModelSource,
    /// The runtime.
    #[serde(default)]
    pub backend: Backend,
    /// `tensorrt-rtx` only: compute capability to build for, such as 89.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 75, max = 130))]
    pub compute_capability: Option<u32>,
    /// Batch size to optimise for, where the model's batch is free.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch: u32,
    /// `onnxruntime` only: compare what the engine computes with the file that it was built from, on random images: its outputs and what
    /// each integer kernel gives. A value that is lost (SQNR below 10 dB) fails the stage and is named.
    #[serde(default = "super::contract::yes")]
    pub verify: bool,
}

/// A runtime that engines are built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// ONNX Runtime on the CPU: the optimized model.
    #[default]
    Onnxruntime,
    /// TensorRT-RTX; built without a GPU too (cargo feature `tensorrt-rtx` of the worker).
    TensorrtRtx,
}

fn one() -> u32 {
    1
}

impl Contract for BuildEngine {
    const NAME: &'static str = "build-engine";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "build an inference engine from an ONNX file";

    fn inputs(&self) -> Vec<Input> {
        self.model.inputs()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("engine", PortType::Engine, "engine"),
            Output::new("layers", PortType::File, "layers.json"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        match self.backend {
            Backend::Onnxruntime => vec![Fact::Cpu, Fact::OnnxRuntime],
            Backend::TensorrtRtx => vec![Fact::TensorRtRtx],
        }
    }

    fn check(&self) -> Vec<Problem> {
        if self.backend == Backend::Onnxruntime && self.compute_capability.is_some() {
            return vec![Problem::at(
                "compute_capability",
                "`compute_capability` belongs to backend \"tensorrt-rtx\" only",
            )];
        }
        Vec::new()
    }
}
