//! `build-engine`: what a runtime makes of an ONNX file.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem};
use super::model_source::ModelSource;

/// Builds an engine from an ONNX file.
///
/// Outputs: `engine` (a directory: `engine.json` and the backend's files), `layers` (JSON: what the
/// runtime made of each layer and in which type).
///
/// Backend `tensorrt` needs a GPU and takes the machine for itself, since its builder times kernels. Its `engine` also holds `build.log`, all that
/// trtexec said, and `layer-info.json`; its metrics `advice` (hints and warnings of TensorRT; on a processor without VNNI how an engine of ONNX Runtime would be faster), `planned_int8`, `float_fallbacks` and `fallbacks`: the
/// weighted layers behind Q/DQ pairs that do not compute in INT8, with those pairs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildEngine {
    /// The exported model.
    pub model: ModelSource,
    /// The runtime.
    #[serde(default)]
    pub backend: Backend,
    /// `tensorrt-rtx` only: compute capability to build for: 75, 80, 86, 89 or 120. Default: 89.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 75, max = 130))]
    pub compute_capability: Option<u32>,
    /// Batch size to optimise for, where the model's batch is free.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch: u32,
    /// `tensorrt` only: least batch of the engine, where the model's batch is free (`--minShapes`). Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub min_batch: Option<u32>,
    /// `tensorrt` only: greatest batch, where the model's is free (`--maxShapes`). Default: `batch`, which is `--optShapes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_batch: Option<u32>,
    /// `tensorrt`, `tensorrt-rtx` and `torch`: types that it may compute in. Default: `int8` of TensorRT where the model has Q/DQ pairs, else `fp32`; of
    /// TensorRT-RTX those of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// `tensorrt` only: more flags for trtexec's build, such as `"--builderOptimizationLevel=5"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// `tensorrt` only: try several lists of flags, build and time each twice on this GPU, and keep the engine of the least median GPU compute time:
    /// `--int8 --fp16`, `--int8` and `--best`; of a model without Q/DQ pairs none and `--fp16`; since TensorRT 8.6 also the first with
    /// `--builderOptimizationLevel=5`. All tries are in the metrics (`tries`). The timing cache is not used.
    #[serde(default, skip_serializing_if = "is_no")]
    pub tune: bool,
    /// `tensorrt` only: keep what the builder measured for later builds for the same GPU, driver branch and version on this machine. Default:
    /// true.
    #[serde(default = "super::contract::yes", skip_serializing_if = "super::contract::is_yes")]
    pub timing_cache: bool,
    /// `onnxruntime` only: keep integer kernels whose sums saturate on x86 processors without VNNI, which are faster. Else weights are stored as uint8
    /// there (the same values), and the engine computes what the file says. Without effect on other processors.
    #[serde(default, skip_serializing_if = "is_no")]
    pub saturate: bool,
    /// Compare what the engine computes with the file that it was built from, on random images: its outputs and, of `onnxruntime`, what
    /// each integer kernel gives. A value that is lost at one node (SQNR below 10 dB, and 6 dB less than what the node reads) fails the stage and is named; with `saturate` on a processor without VNNI it is a warning.
    /// TensorRT and libtorch show outputs alone: where they are lost, the engine is built once more with what convolutions and matrix products read as outputs, and the
    /// first value that is lost is named.
    /// Not of `tensorrt-rtx`, which builds without a GPU that could run it, nor of precision `implicit`, whose ranges TensorRT makes up.
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
    /// TensorRT 8.5 to 11, driven through its program `trtexec`, on the GPU of this machine.
    Tensorrt,
    /// TensorRT-RTX; built without a GPU too (cargo feature `tensorrt-rtx` of the worker).
    TensorrtRtx,
    /// libtorch, on the GPU where there is one: what PyTorch gives without a compiler, one kernel after another or as a CUDA graph (`benchmark`'s
    /// `cuda_graph`). Q/DQ pairs are simulated in float.
    Torch,
}

/// Types that an engine may compute in; of TensorRT, the flags of trtexec that say so. TensorRT 11 has none of these flags: it takes all types from the
/// ONNX file, where `int8` and `fp16` cast the float part to FP16; `best` is refused. TensorRT-RTX is strongly typed as well,
/// and casts likewise. Backend `torch` has `fp32`, `tf32` and, on a GPU, `fp16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// No flag: FP32, with TF32 in matrix products and convolutions as is TensorRT's default (`flags = ["--noTF32"]` turns it off).
    Fp32,
    /// `--fp16`; since TensorRT 11 cast in the file.
    Fp16,
    /// `--int8 --fp16`: INT8 where Q/DQ pairs say so, the rest in FP16 where that is faster; with `--fp8` or `--int4` where the pairs are of these types.
    Int8,
    /// `--int8`: INT8 where Q/DQ pairs say so, the rest in FP32; with `--fp8` or `--int4` likewise.
    Int8Fp32,
    /// `--best`: all types that the GPU has.
    Best,
    /// `--best` of a float model, of which TensorRT chooses what is INT8: the practical limit, to be timed beside your own placement. trtexec makes the ranges
    /// up, so what the engine computes means nothing, and `evaluate` refuses it. Up to TensorRT 10.
    Implicit,
    /// `torch` only: FP32, factors of convolutions and matrix products rounded to TF32.
    Tf32,
}

impl Precision {
    /// The word in a pipeline file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int8Fp32 => "int8-fp32",
            Self::Best => "best",
            Self::Implicit => "implicit",
            Self::Tf32 => "tf32",
        }
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_no(value: &bool) -> bool {
    !value
}

/// Flags of trtexec that the stage sets itself, and what says so instead.
const OURS: &[(&str, &str)] = &[
    ("--onnx", "the stage's `model`"),
    ("--saveEngine", "the stage's output"),
    ("--loadEngine", "the stage's output"),
    ("--exportLayerInfo", "the stage's output `layers`"),
    ("--exportTimes", "a `benchmark` stage"),
    ("--profilingVerbosity", "the stage, always `detailed`"),
    ("--timingCacheFile", "`timing_cache`"),
    ("--skipInference", "the stage"),
    ("--buildOnly", "the stage"),
    ("--minShapes", "`min_batch`"),
    ("--optShapes", "`batch`"),
    ("--maxShapes", "`max_batch`"),
    ("--shapes", "`batch`"),
    ("--int8", "`precision`"),
    ("--fp16", "`precision`"),
    ("--best", "`precision`"),
    // The cache key names the first GPU that the stage sees, and trtexec numbers those.
    (
        "--device",
        "`qpipe run --gpus` or CUDA_VISIBLE_DEVICES: the engine is built on the first GPU that the stage sees",
    ),
];

impl Contract for BuildEngine {
    const NAME: &'static str = "build-engine";
    const VERSION: u32 = 12;
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
            Backend::Tensorrt => vec![Fact::TensorRt],
            Backend::TensorrtRtx => vec![Fact::TensorRtRtx],
            Backend::Torch => vec![Fact::Libtorch],
        }
    }

    /// TensorRT's builder times kernels: whatever runs beside it changes what it chooses.
    fn demand(&self) -> Demand {
        match self.backend {
            Backend::Tensorrt => Demand::Alone,
            Backend::Onnxruntime | Backend::TensorrtRtx | Backend::Torch => Self::DEMAND,
        }
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.backend != Backend::Onnxruntime && self.saturate {
            problems.push(Problem::at(
                "saturate",
                "`saturate` belongs to backend \"onnxruntime\" only",
            ));
        }
        if self.backend != Backend::TensorrtRtx && self.compute_capability.is_some() {
            problems.push(Problem::at(
                "compute_capability",
                "`compute_capability` belongs to backend \"tensorrt-rtx\" only",
            ));
        }
        if let Some(other) = self.compute_capability
            && self.backend == Backend::TensorrtRtx
            && !COMPUTE_CAPABILITIES.contains(&other)
        {
            let message = format!("TensorRT-RTX does not build for compute capability {other}");
            let problem = Problem::at("compute_capability", message);
            problems.push(problem.help(format!("expected {}", compute_capabilities())));
        }
        if self.backend == Backend::Tensorrt {
            problems.extend(self.check_tensorrt());
        } else {
            let torch = self.backend == Backend::Torch;
            match self.precision {
                Some(Precision::Fp32 | Precision::Tf32 | Precision::Fp16) if torch => {}
                Some(other) if torch => problems.push(
                    Problem::at(
                        "precision",
                        format!("precision = \"{}\" belongs to backend \"tensorrt\"", other.name()),
                    )
                    .help("backend \"torch\" has fp32, tf32 and fp16"),
                ),
                Some(Precision::Fp32 | Precision::Fp16 | Precision::Int8 | Precision::Int8Fp32)
                    if self.backend == Backend::TensorrtRtx => {}
                Some(other) if self.backend == Backend::TensorrtRtx => problems.push(
                    Problem::at(
                        "precision",
                        format!("precision = \"{}\" does not belong to backend \"tensorrt-rtx\"", other.name()),
                    )
                    .help("it is strongly typed, and has fp32, fp16, int8 and int8-fp32"),
                ),
                Some(_) => problems.push(Problem::at(
                    "precision",
                    "`precision` belongs to backends \"tensorrt\", \"tensorrt-rtx\" and \"torch\" only",
                )),
                None => {}
            }
            let given = [
                ("flags", !self.flags.is_empty()),
                ("tune", self.tune),
                ("timing_cache", !self.timing_cache),
                ("min_batch", self.min_batch.is_some()),
                ("max_batch", self.max_batch.is_some()),
            ];
            let given = given.iter().filter(|(_, given)| *given);
            problems.extend(given.map(|(key, _)| {
                Problem::at(key, format!("`{key}` belongs to backend \"tensorrt\" only"))
            }));
        }
        problems
    }
}

/// What is wrong with `flags` for trtexec.
pub(super) fn check_flags(flags: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for flag in flags {
        let name = flag.split('=').next().unwrap_or_default();
        if !names.insert(name) {
            let problem = Problem::at("flags", format!("{name} is there twice"));
            problems.push(problem.help("no version of trtexec takes a flag twice"));
        }
        if !flag.starts_with("--") || flag.contains(char::is_whitespace) {
            let message = format!("{flag:?} is no flag of trtexec");
            problems.push(
                Problem::at("flags", message)
                    .help("expected one flag a string, such as \"--noTF32\""),
            );
        } else if let Some((_, instead)) = OURS.iter().find(|(ours, _)| *ours == name) {
            problems.push(Problem::at("flags", format!("{name} is set by {instead}")));
        }
    }
    problems
}

/// What TensorRT-RTX 1.7 builds for.
pub const COMPUTE_CAPABILITIES: [u32; 5] = [75, 80, 86, 89, 120];

/// The same in words: `75, 80, 86, 89 or 120`.
pub fn compute_capabilities() -> String {
    let [others @ .., last] = COMPUTE_CAPABILITIES.map(|number| number.to_string());
    format!("{} or {last}", others.join(", "))
}

impl BuildEngine {
    fn check_tensorrt(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.precision == Some(Precision::Tf32) {
            let problem =
                Problem::at("precision", "precision = \"tf32\" belongs to backend \"torch\"");
            problems.push(
                problem
                    .help("use \"fp32\", which has TF32 on; flags = [\"--noTF32\"] turns it off"),
            );
        }
        if self.tune && self.precision.is_some() {
            let problem = Problem::at("precision", "`tune` chooses the precision itself");
            problems.push(problem.help("leave out one of the two"));
        }
        problems.extend(check_flags(&self.flags));
        let (least, most) = (self.min_batch.unwrap_or(1), self.max_batch.unwrap_or(self.batch));
        if least > self.batch {
            problems.push(Problem::at(
                "min_batch",
                format!("the least batch, {least}, is greater than `batch`, {}", self.batch),
            ));
        }
        if most < self.batch {
            problems.push(Problem::at(
                "max_batch",
                format!("the greatest batch, {most}, is less than `batch`, {}", self.batch),
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: serde_json::Value) -> BuildEngine {
        let mut config = config;
        config["model"] = "onnx.model".into();
        serde_json::from_value(config).unwrap()
    }

    fn problems(config: serde_json::Value) -> Vec<String> {
        let problems = Contract::check(&of(config));
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.field.join("."), problem.message))
            .collect()
    }

    #[test]
    fn keys_of_tensorrt_are_its_own() {
        let keys = serde_json::json!({"precision": "best", "flags": ["--x"], "tune": true, "timing_cache": false, "max_batch": 8});
        assert_eq!(problems(keys).len(), 5);
        let torch =
            |precision| problems(serde_json::json!({"backend": "torch", "precision": precision}));
        assert!(torch("fp16").is_empty() && torch("tf32").is_empty());
        assert_eq!(
            torch("int8"),
            ["precision: precision = \"int8\" belongs to backend \"tensorrt\""]
        );
        let capability = |number: u32| {
            let backend = "tensorrt-rtx";
            problems(serde_json::json!({"backend": backend, "compute_capability": number}))
        };
        assert!(COMPUTE_CAPABILITIES.into_iter().all(|number| capability(number).is_empty()));
        let schema = serde_json::to_string(&schemars::schema_for!(BuildEngine)).unwrap();
        assert!(schema.contains(&format!("to build for: {}. ", compute_capabilities())));
        assert_eq!(
            capability(90),
            ["compute_capability: TensorRT-RTX does not build for compute capability 90"]
        );
        let rtx = |precision| {
            problems(serde_json::json!({"backend": "tensorrt-rtx", "precision": precision}))
        };
        assert!(rtx("int8").is_empty());
        assert_eq!(rtx("best").len(), 1);
        let saturate =
            |backend| problems(serde_json::json!({"backend": backend, "saturate": true}));
        assert!(saturate("onnxruntime").is_empty());
        assert_eq!(saturate("torch").len(), 1);
        let quiet = serde_json::to_value(of(serde_json::json!({}))).unwrap();
        assert_eq!(quiet.as_object().unwrap().len(), 4, "old files keep their keys: {quiet}");
    }

    #[test]
    fn flags_and_batches_that_contradict_the_stage() {
        let tensorrt = |more: serde_json::Value| {
            let mut config = serde_json::json!({"backend": "tensorrt", "batch": 8});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            problems(config)
        };
        assert_eq!(
            tensorrt(serde_json::json!({"flags": ["--noTF32"], "max_batch": 32})),
            Vec::<String>::new()
        );
        assert_eq!(
            tensorrt(serde_json::json!({"flags": ["--onnx=x"]})),
            ["flags: --onnx is set by the stage's `model`"]
        );
        let device = tensorrt(serde_json::json!({"flags": ["--device=1"]}));
        assert!(device.len() == 1 && device[0].contains("set by `qpipe run --gpus`"), "{device:?}");
        let twice = ["--builderOptimizationLevel=4", "--noTF32", "--builderOptimizationLevel=5"];
        assert_eq!(
            tensorrt(serde_json::json!({"flags": twice})),
            ["flags: --builderOptimizationLevel is there twice"]
        );
        assert_eq!(
            tensorrt(serde_json::json!({"flags": ["--a --b"]})),
            ["flags: \"--a --b\" is no flag of trtexec"]
        );
        assert_eq!(tensorrt(serde_json::json!({"min_batch": 9, "max_batch": 7})).len(), 2);
        assert_eq!(
            tensorrt(serde_json::json!({"tune": true, "precision": "int8"})),
            ["precision: `tune` chooses the precision itself"]
        );
    }

    #[test]
    fn an_engine_of_tensorrt_belongs_to_its_gpu_and_is_built_alone() {
        let config = of(serde_json::json!({"backend": "tensorrt"}));
        assert_eq!(Contract::facts(&config), [Fact::TensorRt]);
        assert_eq!(Contract::demand(&config), Demand::Alone);
    }
}
