//! Builds an engine with trtexec.

use std::collections::BTreeSet;

use qpipe::stages::build_engine::Precision;
use qpipe::stages::contract::Metrics;
use serde_json::{Value, json};

use super::attempt::ENGINE;
use super::flags;
use super::layers::Planned;
use super::pairs::Pairs;
use super::tune::tune;
use super::typed::{self, Typed};
use super::{Attempt, Attempts, Program, Source, TimingCache, gpu};
use crate::engine::note::OnGpu;
use crate::engine::{Build, Built, Note, Told};
use crate::{Error, Result};

/// What a pipeline asks of TensorRT.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// More flags for trtexec.
    pub flags: Vec<String>,
    /// Whether several lists of flags are tried.
    pub tune: bool,
    /// What is done with the machine's timing cache.
    pub timing_cache: Caching,
    /// Least batch of an engine whose batch is free.
    pub min_batch: u32,
    /// Greatest; `None`: the one that it is optimised for.
    pub max_batch: Option<u32>,
}

/// What a build does with the machine's timing cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// It measures all by itself.
    #[default]
    Off,
    /// It takes what others measured, and keeps its own figures to itself: of a build beside which anything may run.
    Read,
    /// It takes what others measured, and adds to it: of a build that has the machine alone.
    Shared,
}

/// Builds an engine, with its log and its layers.
pub fn build(request: &Build) -> Result<Built> {
    let program = Program::find()?;
    let gpu = gpu::used()?;
    let (wishes, version) = (&request.tensorrt, program.version);
    let pairs = Pairs::of(&request.model.graph);
    let quantized = pairs.any();
    let mut note = Note::of(request.model, "tensorrt", version.to_string(), ENGINE)?;
    let batches = note.batch.is_none().then(|| {
        [wishes.min_batch.max(1), request.batch, wishes.max_batch.unwrap_or(request.batch)]
    });
    let typed = typed::file(request, version, quantized)?;
    let path = typed.as_ref().map_or_else(|| request.path.to_owned(), Typed::path);
    let source = Source { onnx: &path, note: &note, batches, more: &wishes.flags };
    let mut attempts = Attempts { program: &program, request, source, cache: None };
    let mut advice = Vec::new();
    if typed.is_some() {
        (request.tell)(Told::Log(&format!(
            "TensorRT {version} takes all types from the ONNX file: what is float there was cast to FP16"
        )));
    }
    let (done, chosen, tries) = if wishes.tune {
        // Builds of one list of flags are compared: times from a cache would make the second a copy of the first.
        let (done, chosen, tries) =
            tune(&attempts, &flags::candidates(version, pairs, &wishes.flags)?)?;
        (done, chosen, Some(tries))
    } else {
        let usual = if quantized { Precision::Int8 } else { Precision::Fp32 };
        let chosen = flags::precision(version, request.precision.unwrap_or(usual), pairs)?;
        let chosen = flags::without(chosen, &wishes.flags);
        attempts.cache = cache(request, &program, &gpu);
        let attempt = Attempt {
            folder: request.folder,
            flags: chosen.clone(),
            timed: false,
            title: String::new(),
        };
        (attempts.run(&attempt)?, chosen, None)
    };
    drop(typed);
    advice.extend(done.log.advice.iter().cloned());
    warn_of_fallbacks(request, &done.layers.planned);
    let bytes = std::fs::metadata(request.folder.join(ENGINE)).map_or(0, |file| file.len());
    let mut metrics = Metrics::from([
        ("runtime".to_owned(), json!(version.to_string())),
        ("gpu".to_owned(), json!(gpu.words())),
        ("flags".to_owned(), json!(chosen.iter().chain(&wishes.flags).collect::<Vec<_>>())),
        ("build_seconds".to_owned(), json!(done.log.build_seconds)),
        ("engine_bytes".to_owned(), json!(bytes)),
        ("timing_cache".to_owned(), json!(done.cache)),
        ("advice".to_owned(), json!(advice)),
    ]);
    metrics.extend(of_planned(&done.layers.planned));
    metrics.extend(tries.map(|tries| ("tries".to_owned(), tries)));
    for line in &advice {
        (request.tell)(Told::Log(&format!("advice: {line}")));
    }
    note.precision = request.precision;
    note.quantized |= request.precision == Some(Precision::Implicit);
    note.on_gpu = Some(OnGpu {
        gpu,
        timing_cache: ["new", "used"].contains(&done.cache),
        flags: chosen.into_iter().chain(wishes.flags.iter().cloned()).collect(),
        batches,
        advice,
        made_up_ranges: request.precision == Some(Precision::Implicit),
    });
    Ok(Built { note, layers: done.layers.layers, metrics })
}

/// The timing cache, unless it is not wanted, the program keeps none, or an earlier build had to do without it.
pub(super) fn cache(request: &Build, program: &Program, gpu: &super::Gpu) -> Option<TimingCache> {
    let cache = TimingCache::of(program.version, gpu)
        .filter(|_| request.tensorrt.timing_cache != Caching::Off && !program.own)?;
    if request.tensorrt.timing_cache == Caching::Read && !cache.is_there() {
        return None;
    }
    match cache.refusal() {
        Some(reason) => {
            let line = format!(
                "built without a timing cache, as an earlier build had to be ({reason}); remove {} to try it again",
                cache.note().display()
            );
            (request.tell)(Told::Log(&line));
            None
        }
        None => Some(cache),
    }
}

/// Counts of what stands behind pairs of which type, and the list of what computes in another.
fn of_planned(planned: &[Planned]) -> Vec<(String, Value)> {
    let unseen: BTreeSet<&str> =
        planned.iter().filter(|it| it.precision.is_none()).map(|it| it.node.as_str()).collect();
    let fallbacks: Vec<&Planned> = planned.iter().filter(|it| it.fell_back()).collect();
    let count = |meant: &str| planned.iter().filter(|it| it.meant == meant).count();
    let mut counts = vec![("planned_int8".to_owned(), json!(count("int8")))];
    for (meant, name) in [("float8", "planned_float8"), ("int4", "planned_int4")] {
        let count = count(meant);
        counts.extend((count > 0).then(|| (name.to_owned(), json!(count))));
    }
    counts.extend([
        ("float_fallbacks".to_owned(), json!(fallbacks.len())),
        ("fallbacks".to_owned(), json!(fallbacks)),
        ("unseen".to_owned(), json!(unseen)),
    ]);
    counts
}

fn warn_of_fallbacks(request: &Build, planned: &[Planned]) {
    let fallbacks: Vec<&Planned> = planned.iter().filter(|it| it.fell_back()).collect();
    let Some(first) = fallbacks.first() else { return };
    (request.tell)(Told::Warning(format!(
        "{} of {} layers behind Q/DQ pairs compute in another type than theirs: \"{}\" in {} in spite of {}, of {}{}",
        fallbacks.len(),
        planned.len(),
        first.node,
        first.precision.as_deref().unwrap_or_default(),
        first.pairs.join(", "),
        first.meant,
        if fallbacks.len() > 1 { "; the metrics list all" } else { "" }
    )));
}

/// Refuses a batch that an engine was not built for.
///
/// # Errors
/// A batch beyond the engine's profile.
pub fn check_batch(note: &Note, batch: usize) -> Result<()> {
    let batches = note.on_gpu.as_ref().and_then(|on| on.batches);
    match (note.batch, batches) {
        (None, Some([least, _, most])) if batch < least as usize || batch > most as usize => {
            Err(Error::user(format!("the engine takes batches of {least} to {most}, not {batch}"))
                .help("build it with a greater `max_batch` (or a smaller `min_batch`)")
                .key("batch_sizes"))
        }
        _ => Ok(()),
    }
}
