//! What the metrics of a stage say, told by their keys.

use serde::Deserialize;

use super::table::{Accuracy, Boxes, LatencyMs};
use crate::stages::contract::Metrics;

/// The figures of one stage.
pub(super) enum Figures {
    /// Of `evaluate`.
    Evaluation(Evaluation),
    /// Of `evaluate` of a detector.
    Detection(Detection),
    /// Of `benchmark`.
    Benchmark(Benchmark),
    /// Of anything else: single numbers and words, each a column.
    Other(Vec<(String, serde_json::Value)>),
}

/// The metrics of `evaluate`.
#[derive(Deserialize)]
pub(super) struct Evaluation {
    /// What was evaluated.
    pub subject: Subject,
    /// `libtorch`, `onnxruntime`, …
    pub backend: String,
    /// The accuracy.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// The metrics of `evaluate` of a detector.
#[derive(Deserialize)]
pub(super) struct Detection {
    /// What was evaluated.
    pub subject: Subject,
    /// `libtorch`, `onnxruntime`, …
    pub backend: String,
    /// The agreement.
    #[serde(flatten)]
    pub boxes: Boxes,
}

/// What was evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// A model on libtorch, Q/DQ simulated.
    Simulation,
    /// A built engine.
    Engine,
}

/// The metrics of `benchmark`.
#[derive(Deserialize)]
pub(super) struct Benchmark {
    /// The runtime.
    pub backend: String,
    /// CPU threads.
    pub threads: u32,
    /// Processors that the threads were pinned to.
    #[serde(default)]
    pub cpus: Vec<u32>,
    /// Version of the runtime.
    #[serde(default)]
    pub runtime: Option<String>,
    /// The GPU that it ran on.
    #[serde(default)]
    pub gpu: Option<Gpu>,
    /// Whether it was launched as a CUDA graph.
    #[serde(default)]
    pub cuda_graph: bool,
    /// Whether the engine is of a quantized model.
    #[serde(default)]
    pub quantized: Option<bool>,
    /// An entry a batch size.
    pub batches: Vec<Batch>,
}

/// A GPU.
#[derive(Deserialize)]
pub(super) struct Gpu {
    /// Its name.
    pub name: String,
}

/// What is advised in the metrics of `benchmark` and `build-engine`, a list of sentences; those of trtexec under its name.
pub(super) fn advice(metrics: &Metrics) -> impl Iterator<Item = String> {
    let lines = metrics.get("advice").and_then(serde_json::Value::as_array);
    let ours = metrics.get("backend").is_some_and(|backend| backend == "onnxruntime");
    let lines = lines.into_iter().flatten().filter_map(serde_json::Value::as_str);
    lines.map(move |line| if ours { line.to_owned() } else { format!("trtexec: {line}") })
}

/// The timing of one batch size.
#[derive(Deserialize)]
pub(super) struct Batch {
    /// Images a run.
    pub batch: u64,
    /// Timed runs.
    pub iterations: u64,
    /// Milliseconds a run.
    pub latency_ms: LatencyMs,
    /// Images a second, from the median.
    pub throughput: f64,
}

impl Figures {
    /// Tells which kind of figures these are. Figures that look like a benchmark's or an
    /// evaluation's but are not complete are an error.
    pub(super) fn read(metrics: &Metrics) -> Result<Self, String> {
        let value = || serde_json::Value::Object(metrics.clone().into_iter().collect());
        if metrics.contains_key("batches") {
            let benchmark = Benchmark::deserialize(value());
            benchmark.map(Self::Benchmark).map_err(|error| format!("benchmark figures: {error}"))
        } else if metrics.contains_key("subject") && metrics.contains_key("map50") {
            let detection = Detection::deserialize(value());
            detection.map(Self::Detection).map_err(|error| format!("detection figures: {error}"))
        } else if metrics.contains_key("subject") {
            let evaluation = Evaluation::deserialize(value());
            evaluation.map(Self::Evaluation).map_err(|error| format!("evaluation figures: {error}"))
        } else {
            let single = |value: &serde_json::Value| !value.is_array() && !value.is_object();
            let single = metrics.iter().filter(|(_, value)| single(value));
            Ok(Self::Other(single.map(|(name, value)| (name.clone(), value.clone())).collect()))
        }
    }
}
