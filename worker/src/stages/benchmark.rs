//! `benchmark`: latency and throughput of an engine.

use qpipe::stages::benchmark::Benchmark;
use qpipe::stages::contract::Metrics;
use serde_json::json;

use super::{Context, model::write_json};
use crate::bench::{self, Others, Protocol};
use crate::engine::{Note, Threads, Timing, Told};
use crate::{Result, engine};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Benchmark = context.config()?;
    let folder = context.need("engine")?;
    let note = Note::read(folder)?;
    let sizes: Vec<usize> = match note.batch {
        Some(fixed) => vec![fixed],
        None => config.batch_sizes.iter().map(|&batch| batch as usize).collect(),
    };
    let protocol =
        Protocol { warmup: config.warmup, iterations: config.iterations, seconds: config.seconds };
    let mut metrics = match engine::clock(&note) {
        Some(clock) => clock(&Timing {
            folder,
            note: &note,
            batches: &sizes,
            protocol,
            warmup_ms: config.warmup_ms.unwrap_or(WARMUP_MS),
            cuda_graph: config.cuda_graph,
            scratch: &context.task.scratch,
            tell: &|told: Told| context.events.told(told),
        })?,
        None => from_outside(context, &config, &sizes, &protocol)?,
    };
    metrics.insert("quantized".to_owned(), json!(note.quantized));
    write_json(&metrics, context.output("metrics")?)?;
    Ok(metrics)
}

/// As trtexec has it where nothing is said.
pub(super) const WARMUP_MS: u32 = 200;

/// What the report says of figures that other programs may have spoilt.
const NOT_FREE: &str = "other programs used its processors while it was timed: time it again (--force) when the machine is free";

/// Times runs of an engine in this process, image memory to logits.
fn from_outside(
    context: &Context,
    config: &Benchmark,
    sizes: &[usize],
    protocol: &Protocol,
) -> Result<Metrics> {
    let threads = config.threads.map_or(context.task.threads, |threads| threads as usize);
    // One thread on each processor: two that share one for a while make a series of two speeds.
    let cpus = bench::cpus(threads)?;
    let (note, mut engine) = engine::load(context.need("engine")?, &Threads::Pinned(cpus.clone()))?;
    bench::pin(&cpus[..1])?;
    let (mut batches, mut advice) = (Vec::new(), Vec::new());
    for (index, &batch) in sizes.iter().enumerate() {
        let images = bench::noise(batch * note.input.iter().product::<usize>());
        let mut run = || engine.run(&images, batch).map(drop);
        let mut progress = |part: f64| {
            let done = 100.0 * (index as f64 + part) / sizes.len() as f64;
            context.events.progress(done as u64, 100, "%", &format!("batch {batch}"));
        };
        let others = Others::begin(&cpus);
        batches.push(bench::time(protocol, batch, &mut run, &mut progress)?);
        if let Some(share) = others.share().filter(|share| *share > bench::NOTABLE) {
            context.events.warn(format!(
                "batch {batch}: other programs, or the host of this virtual machine, took {:.0} % of the time of the processors {cpus:?} while it was timed: \
                 latencies are of a machine that was not free; time it again with --force when it is",
                100.0 * share
            ));
            let line = NOT_FREE.to_owned();
            if !advice.contains(&line) {
                advice.push(line);
            }
        }
    }
    let mut metrics = Metrics::from([
        ("backend".to_owned(), json!(note.backend)),
        ("runtime".to_owned(), json!(note.runtime)),
        ("threads".to_owned(), json!(threads)),
        ("cpus".to_owned(), json!(cpus)),
        ("batches".to_owned(), json!(batches)),
    ]);
    advice.extend(engine::advice(context.need("engine")?, &note)?.map(str::to_owned));
    if !advice.is_empty() {
        metrics.insert("advice".to_owned(), json!(advice));
    }
    Ok(metrics)
}
