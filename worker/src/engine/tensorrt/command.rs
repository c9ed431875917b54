//! Command lines of trtexec: the only place where they are made, so that `help_texts.rs` sees every flag that is ever passed.

use std::path::Path;

use super::attempt::{ENGINE, LAYERS, TIMES};
use super::flags::{self, Wish};
use super::{Version, infer};
use crate::engine::{Note, Timing};

/// Arguments for trtexec. Nothing but this file makes any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// The arguments, without the program's name.
    pub fn arguments(&self) -> &[String] {
        &self.0
    }
}

/// What is built, the same in all builds of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The ONNX file.
    pub onnx: &'a Path,
    /// Name and extents of its input.
    pub note: &'a Note,
    /// Least, best and greatest batch, where the model's is free.
    pub batches: Option<[u32; 3]>,
    /// `flags` of the pipeline.
    pub more: &'a [String],
}

/// Lists what it has, below its banner.
pub fn help() -> CommandLine {
    CommandLine(vec!["--help".to_owned()])
}

/// Builds an engine of `source` with the flags `chosen`, into `folder`; `timed`: it is run and timed too, as `benchmark` does. `cache`: a copy of the
/// timing cache, that it reads and writes.
pub fn build(
    version: Version,
    source: &Source,
    chosen: &[String],
    timed: bool,
    folder: &Path,
    cache: Option<&Path>,
) -> CommandLine {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    let mut arguments = vec![
        format!("--onnx={}", source.onnx.display()),
        "--profilingVerbosity=detailed".to_owned(),
    ];
    let note = source.note;
    arguments.extend(
        source.batches.iter().flat_map(|it| flags::profile(&note.input_name, note.input, *it)),
    );
    arguments.extend(source.more.iter().chain(chosen).cloned());
    let wishes: &[Wish] = if timed {
        &[Wish::CudaGraph, Wish::SpinWait, Wish::Transfers]
    } else {
        &[Wish::BuildOnly]
    };
    // No version takes a flag twice.
    let own = of(version, wishes).filter(|flag| !flags::names(source.more, flag));
    arguments.extend(own);
    arguments.push(file("saveEngine", ENGINE));
    arguments.push(file("exportLayerInfo", LAYERS));
    if timed {
        arguments.push(file("exportTimes", TIMES));
    }
    arguments.extend(cache.map(|place| format!("--timingCacheFile={}", place.display())));
    CommandLine(arguments)
}

/// Times an engine at a batch size; `times`: the file of each query's times.
pub fn time(version: Version, timing: &Timing, batch: usize, times: &Path) -> CommandLine {
    let note = timing.note;
    let mut arguments = vec![
        format!("--loadEngine={}", timing.folder.join(&note.file).display()),
        format!("--exportTimes={}", times.display()),
        format!("--warmUp={}", timing.warmup_ms),
        format!("--iterations={}", timing.protocol.iterations),
        format!("--duration={}", timing.protocol.seconds),
        "--avgRuns=1000".to_owned(),
    ];
    if note.batch.is_none() {
        arguments.push(flags::shapes(&note.input_name, note.input, batch));
    }
    let graph = if timing.cuda_graph { Wish::CudaGraph } else { Wish::NoCudaGraph };
    arguments.extend(of(version, &[graph, Wish::SpinWait, Wish::Transfers]));
    CommandLine(arguments)
}

/// Runs an engine once on the images of a file.
pub fn infer(version: Version, note: &Note, batch: usize, files: &infer::Files) -> CommandLine {
    let mut arguments = vec![
        format!("--loadEngine={}", files.engine.display()),
        flags::inputs(&note.input_name, files.input),
        format!("--exportOutput={}", files.output.display()),
        "--iterations=1".to_owned(),
        "--warmUp=0".to_owned(),
        "--duration=0".to_owned(),
    ];
    if note.batch.is_none() {
        arguments.push(flags::shapes(&note.input_name, note.input, batch));
    }
    // Since 11 nothing is copied, neither images nor logits, unless that is asked for.
    arguments.extend(of(version, &[Wish::Transfers]));
    CommandLine(arguments)
}

/// The flags of wishes, of those that this version can fulfil.
fn of(version: Version, wishes: &[Wish]) -> impl Iterator<Item = String> {
    wishes.iter().filter_map(move |&wish| flags::of(version, wish)).flatten()
}
