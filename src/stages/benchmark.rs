//! `benchmark`: latency and throughput of an engine on this machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Ref};

/// Times an engine: warm-up, then runs until both `iterations` and `seconds` are reached.
///
/// Output: `metrics` (JSON): for each batch size `latency_ms` (min, mean, median, p90, p95, p99),
/// `throughput` (images a second, from the median), `iterations`, `threads` and the processors that they were pinned to; `quantized`, whether the
/// engine is of a model with Q/DQ pairs. `latency_ms` is
/// that of a whole batch from input in host memory to logits in host memory.
///
/// An engine of backend `tensorrt` is timed by trtexec on its GPU, spinning while it waits. `latency_ms` is what trtexec calls latency, the
/// sum of `h2d_ms` (copies to the GPU), `compute_ms` (what it calls GPU compute time) and `d2h_ms` (copies back), each with the same figures.
/// `throughput` is batch over the median of `compute_ms`, since copies run beside the next batch; `trtexec_throughput` is its own queries a second
/// times the batch. Besides: `gpu` (name, driver, clock and temperature before and after), `cuda_graph`, `advice` (hints of trtexec; on a processor without VNNI how an engine of ONNX Runtime would be faster).
///
/// An engine of backend `torch` on a GPU is timed in the same parts by the wall clock, with the GPU waited for after each, and `throughput` is batch over the
/// median of `compute_ms` too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// The engine.
    pub engine: Ref,
    /// Batch sizes to time, where the engine's batch is free; a fixed one is timed as it is.
    #[serde(default = "default_batch_sizes")]
    #[schemars(length(min = 1), inner(range(min = 1, max = 65536)))]
    pub batch_sizes: Vec<u32>,
    /// Runs before the clock starts, at each batch size; not of backend `tensorrt`, see `warmup_ms`.
    #[serde(default = "default_warmup")]
    pub warmup: u32,
    /// Runs at least.
    #[serde(default = "default_iterations")]
    #[schemars(range(min = 1))]
    pub iterations: u32,
    /// Seconds at least, at each batch size.
    #[serde(default = "default_seconds")]
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub seconds: f64,
    /// CPU threads of the runtime. Default: all that the stage was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u32>,
    /// Backend `tensorrt` only: milliseconds before the clock starts (`--warmUp`). Default: 200, as trtexec's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 600_000))]
    pub warmup_ms: Option<u32>,
    /// Backends `tensorrt` and `torch` on a GPU: launch the engine as a CUDA graph (`--useCudaGraph`), so that small models are not bound by launching kernels one by
    /// one. Default: true.
    #[serde(default = "super::contract::yes", skip_serializing_if = "super::contract::is_yes")]
    pub cuda_graph: bool,
}

fn default_batch_sizes() -> Vec<u32> {
    vec![1, 32]
}

fn default_warmup() -> u32 {
    10
}

fn default_iterations() -> u32 {
    50
}

fn default_seconds() -> f64 {
    1.0
}

impl Contract for Benchmark {
    const NAME: &'static str = "benchmark";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "latency and throughput of an engine";
    const DEMAND: Demand = Demand::Alone;

    fn inputs(&self) -> Vec<Input> {
        vec![Input::reference("engine", &self.engine, &[PortType::Engine])]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::new("metrics", PortType::Metrics, "metrics.json")]
    }

    fn facts(&self) -> Vec<Fact> {
        // Those of the runtime are its engine's.
        vec![Fact::Host, Fact::Cpu]
    }
}
