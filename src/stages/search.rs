//! `search`: which layers to leave in float, by measured latency and error.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::build_engine::{self, Backend, Precision};
use super::calibrate::Method;
use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::formats::{self, Activations, Weights};
use super::insert_qdq::Target;
use super::model_source::ModelSource;
use super::tensorrt_version::{self, TensorrtVersion};

/// Mixed precision by measurement: finds which layers to leave in float so that accuracy stays and the engine is as fast as can be.
/// Candidates are placed, exported and built with the runtime, and timed side by side with the float and the fully quantized engine; their
/// error is measured on data, in simulation and of the engines themselves (not with target `tensorrt`, where each batch is a process of its own).
/// [How it searches, and what it found](mixed-precision.md).
///
/// The fastest candidate that keeps all limits that are given is chosen, by the error of its engine where that is known; with `max_latency_ms`
/// alone, the most accurate one that is fast enough. None: the stage fails, and names the best that was reached. The float engine is a candidate
/// like the others.
///
/// Outputs: `chosen` (TOML: the layers to leave in float; `insert-qdq` takes it with `exclude_from`, a pipeline file with `extends`),
/// `pareto` (JSON: each candidate with its layers in float, latency in ms with its spread, SQNR in dB, cosine, agreement, top-1, the same of its
/// engine, and whether it is on the Pareto front), `table` (Markdown), `picture` (SVG).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
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
    /// Quantize only these layers: node names, globs (`layer1.*`), operators (`op:Conv`) and the other [patterns](placement.md#patterns).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub include: Option<Vec<String>>,
    /// Leave these layers in float in all candidates; same forms. Wins over `include`.
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
    /// Data on which outputs are compared, with labels or without (then there is no top-1); its random transforms are not applied.
    pub data: Ref,
    /// Images used, chosen at random by the seed.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1))]
    pub samples: u64,
    /// Images a step of the simulation.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Output `sensitivity` of a `sensitivity` stage of this model, by which layers are ordered. Default: it is measured here, each layer
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Ref>,
    /// The runtime that engines are built and timed with. Default: the one that `target` names; another is refused, since its latency says
    /// nothing about this placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Batch size that engines are exported, built and timed with.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch: u32,
    /// Backend `tensorrt` only: types that engines with Q/DQ pairs may compute in, as in `build-engine`. The float engine is built with `fp16`
    /// where these may (TensorRT 11: as the file is typed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Backend `tensorrt` only: more flags for trtexec's builds, of all engines, as in `build-engine`, such as `"--tacticSources=-CUBLAS"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// CPU threads of the runtime. Default: all that the stage was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u32>,
    /// Runs of each engine before the clock starts; not of backend `tensorrt`.
    #[serde(default = "default_warmup")]
    pub warmup: u32,
    /// Rounds at least; in each, every engine is timed once, in changing order. Default: 15; with backend `tensorrt`, where a round is a call of
    /// trtexec for each engine, 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 100_000))]
    pub rounds: Option<u32>,
    /// Seconds at least that an engine is timed, over all rounds; up to four times as long where times waver.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub seconds: f64,
    /// Engines built at most, the float and the fully quantized one among them.
    #[serde(default = "default_engines")]
    #[schemars(range(min = 3, max = 1000))]
    pub max_engines: u32,
    /// Points (of 100) of top-1 that may be lost against the float model; of agreement, the share of samples whose highest logit stays, where the model is no
    /// classifier of the data. Default where no limit is given: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub max_loss: Option<f64>,
    /// Least share of samples whose highest logit is the float model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_agreement: Option<f64>,
    /// Least signal to quantization noise of the outputs, dB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -100.0, max = 200.0))]
    pub min_sqnr_db: Option<f64>,
    /// Greatest latency of a batch, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_latency_ms: Option<f64>,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

/// What `max_loss` is where no limit is given, points.
pub const DEFAULT_LOSS: f64 = 1.0;

fn default_samples() -> u64 {
    512
}

fn default_batch_size() -> u32 {
    16
}

fn one() -> u32 {
    1
}

fn default_warmup() -> u32 {
    10
}

fn default_seconds() -> f64 {
    1.0
}

fn default_engines() -> u32 {
    16
}

impl Search {
    /// The runtime that engines are built with.
    pub fn runtime(&self) -> Backend {
        self.backend.unwrap_or(match self.target {
            Target::Onnxruntime => Backend::Onnxruntime,
            Target::Tensorrt => Backend::Tensorrt,
            Target::TensorrtRtx => Backend::TensorrtRtx,
        })
    }

    /// The TensorRT whose rules hold.
    ///
    /// # Errors
    /// What was expected of `tensorrt_version`.
    pub fn version(&self) -> Result<TensorrtVersion, String> {
        tensorrt_version::of(self.tensorrt_version.as_deref())
    }
}

impl Contract for Search {
    const NAME: &'static str = "search";
    const VERSION: u32 = 11;
    const ABOUT: &'static str = "which layers to leave in float, by measured latency and error";
    /// Its latencies are to be right.
    const DEMAND: Demand = Demand::Alone;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.push(Input::reference("ranges", &self.ranges, &[PortType::Ranges]));
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        if let Some(sensitivity) = &self.sensitivity {
            inputs.push(Input::reference("sensitivity", sensitivity, &[PortType::File]));
        }
        inputs
    }

    /// The layers come first, so that `exclude_from = "search"` means them.
    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("chosen", PortType::File, "chosen.toml"),
            Output::new("pareto", PortType::File, "pareto.json"),
            Output::new("table", PortType::File, "pareto.md"),
            Output::new("picture", PortType::File, "pareto.svg"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        let runtime = match self.runtime() {
            Backend::Onnxruntime => Fact::OnnxRuntime,
            Backend::Tensorrt => Fact::TensorRt,
            Backend::TensorrtRtx => Fact::TensorRtRtx,
            Backend::Torch => Fact::Libtorch,
        };
        let mut facts = vec![Fact::Host, Fact::Cpu, self.device.fact(), runtime];
        facts.dedup();
        facts
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        problems.extend(formats::check(
            self.weights,
            self.activations,
            self.per_channel,
            self.target,
        ));
        problems.extend(self.device.check());
        problems.extend(tensorrt_version::problems(self.tensorrt_version.as_deref(), self.target));
        if self.runtime() == Backend::TensorrtRtx {
            let message =
                "engines of TensorRT-RTX are built here and not run, so they cannot be timed";
            let problem = Problem::at("target", message);
            problems.push(problem.help("search with target \"tensorrt\" or \"onnxruntime\", and give the layers to insert-qdq by `exclude_from`"));
            return problems;
        }
        let own = Self { backend: None, ..self.clone() }.runtime();
        if self.runtime() != own {
            problems.push(
                Problem::at(
                    "backend",
                    "engines of this runtime are not those that `target` places pairs for",
                )
                .help("leave `backend` out, or write the `target` of the same name"),
            );
        }
        if self.runtime() == Backend::Tensorrt {
            problems.extend(build_engine::check_flags(&self.flags));
        } else if !self.flags.is_empty() {
            problems.push(Problem::at("flags", "`flags` belongs to backend \"tensorrt\" only"));
        }
        if self.precision.is_some() && self.runtime() != Backend::Tensorrt {
            problems
                .push(Problem::at("precision", "`precision` belongs to backend \"tensorrt\" only"));
        } else if matches!(
            self.precision,
            Some(Precision::Fp32 | Precision::Fp16 | Precision::Tf32 | Precision::Implicit)
        ) {
            problems.push(
                Problem::at("precision", "TensorRT reads Q/DQ pairs with INT8 enabled only")
                    .help("expected \"int8\", \"int8-fp32\" or \"best\""),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(more: serde_json::Value) -> Search {
        let mut config = serde_json::json!({
            "model": "fp32.model", "ranges": "ranges", "target": "onnxruntime", "data": "data.valid",
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    fn problems(more: serde_json::Value) -> Vec<String> {
        let problems = Contract::check(&of(more));
        problems.into_iter().map(|problem| problem.field.join(".")).collect()
    }

    #[test]
    fn engines_are_of_the_runtime_that_pairs_are_placed_for() {
        assert_eq!(of(serde_json::json!({})).runtime(), Backend::Onnxruntime);
        let tensorrt = of(serde_json::json!({"target": "tensorrt"}));
        assert_eq!(tensorrt.runtime(), Backend::Tensorrt);
        assert!(Contract::facts(&tensorrt).contains(&Fact::TensorRt));
        assert!(problems(serde_json::json!({"backend": "onnxruntime"})).is_empty());
        assert_eq!(problems(serde_json::json!({"backend": "tensorrt"})), ["backend"]);
        let rtx = serde_json::json!({"backend": "onnxruntime", "target": "tensorrt-rtx"});
        assert_eq!(problems(rtx), ["backend"]);
        let rtx = problems(serde_json::json!({"target": "tensorrt-rtx"}));
        assert_eq!(rtx, ["target"], "none of its engines runs here");
    }

    #[test]
    fn keys_of_tensorrt_are_its_own() {
        assert_eq!(problems(serde_json::json!({"precision": "int8"})), ["precision"]);
        assert_eq!(problems(serde_json::json!({"flags": ["--noTF32"]})), ["flags"]);
        assert_eq!(problems(serde_json::json!({"tensorrt_version": "10.3"})), ["tensorrt_version"]);
        let tensorrt = |version: &str| {
            problems(serde_json::json!({
                "target": "tensorrt", "precision": "best", "tensorrt_version": version,
            }))
        };
        assert!(tensorrt("10.3").is_empty());
        assert_eq!(tensorrt("7.0"), ["tensorrt_version"]);
        let flags =
            |flags: &[&str]| problems(serde_json::json!({"target": "tensorrt", "flags": flags}));
        assert!(flags(&["--tacticSources=-CUBLAS"]).is_empty());
        assert_eq!(flags(&["--int8"]), ["flags"]);
        let float = serde_json::json!({"target": "tensorrt", "precision": "fp16"});
        assert_eq!(problems(float), ["precision"]);
    }

    /// Latencies belong to the machine they were measured on, and nothing may run beside.
    #[test]
    fn a_latency_belongs_to_its_host() {
        let search = of(serde_json::json!({}));
        assert!(Contract::facts(&search).contains(&Fact::Host));
        assert_eq!(Contract::demand(&search), Demand::Alone);
    }
}
