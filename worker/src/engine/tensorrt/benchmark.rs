//! Times an engine with trtexec: on its GPU, with its clock.

use qpipe::exec::nvidia::State;
use qpipe::stages::contract::Metrics;
use serde::Serialize;
use serde_json::json;

use super::times::Times;
use super::{Gpu, Program, build, command, failure, gpu, log};
use crate::bench::Latency;
use crate::engine::{Note, Timing, Told};
use crate::{Error, Result};

/// Figures of a batch size.
#[derive(Serialize)]
pub struct Timed {
    /// Images in a query.
    pub batch: usize,
    /// Its parts.
    #[serde(flatten)]
    pub times: Times,
    /// Images a second: batch over the median of GPU compute time.
    pub throughput: f64,
    /// The same by trtexec's count of queries a second, over its wall clock.
    pub trtexec_throughput: Option<f64>,
}

/// Times an engine at each batch size.
///
/// # Errors
/// No trtexec, no GPU, an engine of another GPU or version, a batch that it was not built for.
pub fn time(timing: &Timing) -> Result<Metrics> {
    timing.batches.iter().try_for_each(|&batch| build::check_batch(timing.note, batch))?;
    let program = Program::find()?;
    let device = gpu::used()?;
    let (mut batches, mut advice) = (Vec::new(), Vec::new());
    advice.extend(timing.note.on_gpu.iter().flat_map(|on| on.advice.iter().cloned()));
    let before = gpu::state(&device);
    for (index, &batch) in timing.batches.iter().enumerate() {
        timing.begin(index);
        let (timed, hints) = one(timing, &program, batch)?;
        batches.push(timed);
        for hint in hints {
            let hint =
                if timing.batches.len() > 1 { format!("batch {batch}: {hint}") } else { hint };
            if !advice.contains(&hint) {
                advice.push(hint);
            }
        }
    }
    Ok(figures(timing, &program.version.to_string(), &device, before, &batches, &advice))
}

/// The figures of a benchmark on a GPU, whose state `before` it was asked for.
pub fn figures(
    timing: &Timing,
    runtime: &str,
    device: &Gpu,
    before: Option<State>,
    batches: &[Timed],
    advice: &[String],
) -> Metrics {
    Metrics::from([
        ("backend".to_owned(), json!(timing.note.backend)),
        ("runtime".to_owned(), json!(runtime)),
        // The one that enqueues.
        ("threads".to_owned(), json!(1)),
        ("cuda_graph".to_owned(), json!(timing.cuda_graph)),
        (
            "gpu".to_owned(),
            json!({ "name": device.name, "compute_capability": device.compute_capability,
            "driver": device.driver, "before": before, "after": gpu::state(device) }),
        ),
        ("batches".to_owned(), json!(batches)),
        ("advice".to_owned(), json!(advice)),
    ])
}

fn one(timing: &Timing, program: &Program, batch: usize) -> Result<(Timed, Vec<String>)> {
    let note = timing.note;
    let file = timing.scratch.join(format!("times-{batch}.json"));
    let line = command::time(program.version, timing, batch, &file);
    let mut each = |line: &str| {
        if !log::tedious(line) {
            (timing.tell)(Told::Log(line));
        }
    };
    let ended = program.run(&line, &timing.scratch.join("benchmark.log"), &mut each)?;
    if !ended.status.success() {
        return Err(with_origin(failure::of(program, "cannot run the engine", &ended, None), note));
    }
    let times = Times::read(&std::fs::read(&file).map_err(|error| Error::io(&file, &error))?)?;
    let throughput = rate(batch, &times.compute_ms);
    let trtexec_throughput = ended.log.queries_per_second.map(|rate| rate * batch as f64);
    Ok((Timed { batch, times, throughput, trtexec_throughput }, ended.log.advice))
}

/// Images a second of back-to-back runs.
fn rate(batch: usize, compute_ms: &Latency) -> f64 {
    batch as f64 / compute_ms.median * 1e3
}

/// Says what the engine was built by and for, since an error of loading is most often about that.
pub fn with_origin(mut error: Error, note: &Note) -> Error {
    if let Some(on) = &note.on_gpu {
        error.message.push_str(&format!(
            "; it was built by TensorRT {} for {}",
            note.runtime,
            on.gpu.words()
        ));
    }
    error
}
