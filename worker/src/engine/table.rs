//! The table of runtimes, and what each can do.

use std::path::Path;

use qpipe::stages::build_engine::{Backend as Name, Precision};
use qpipe::stages::contract::Metrics;

use super::{Layer, Note, libtorch, onnxruntime, tensorrt};
use crate::bench::Protocol;
use crate::graph::Model;
use crate::{Error, Result, onnx};

/// What a build or a benchmark says while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// How far it is: `done` of `total` units.
    #[expect(missing_docs, reason = "as `Events::progress` has them")]
    Progress { done: u64, total: u64, unit: &'a str, message: &'a str },
    /// A line for the log.
    Log(&'a str),
    /// Something that the user should know although it goes on.
    Warning(String),
}

/// Who is told.
pub type Tell<'a> = &'a dyn Fn(Told);

/// What to build.
pub struct Build<'a> {
    /// The exported model's file.
    pub path: &'a Path,
    /// The same, read.
    pub model: &'a Model,
    /// Folder for the engine's files; `engine.json` is written afterwards.
    pub folder: &'a Path,
    /// Batch size to optimise for, where the model's is free.
    pub batch: u32,
    /// Compute capability to build for, of a GPU.
    pub compute_capability: Option<u32>,
    /// CPU threads for building.
    pub threads: usize,
    /// Types that it may compute in; `None`: the runtime's default.
    pub precision: Option<Precision>,
    /// Whether sums of ONNX Runtime's integer kernels may saturate, for speed, on a processor without VNNI.
    pub saturate: bool,
    /// What is asked of TensorRT.
    pub tensorrt: tensorrt::Wishes,
    /// Where to tell of it.
    pub tell: Tell<'a>,
}

/// What was built.
pub struct Built {
    /// For `engine.json`.
    pub note: Note,
    /// What became of each layer.
    pub layers: Vec<Layer>,
    /// More figures of the build.
    pub metrics: Metrics,
}

/// An engine, loaded.
pub trait Engine {
    /// Runs `batch` images: floats `[batch, C, H, W]` to the values of each of [`Note::outputs`], `[batch, …]`, row by row.
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<Vec<f32>>>;

    /// Batches that it runs at the same time: a loader of images does well to hand over so many at once.
    fn at_once(&self) -> usize {
        1
    }

    /// Runs several batches of `batch` images each, as [`Engine::run`] does; what each gives, in their order.
    fn run_all(&mut self, batches: &[Vec<f32>], batch: usize) -> Result<Vec<Vec<Vec<f32>>>> {
        batches.iter().map(|images| self.run(images, batch)).collect()
    }
}

/// CPU threads that an engine runs on; the calling thread is one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Threads {
    /// So many, wherever the system puts them.
    Free(usize),
    /// One on each of these processors. The first is the calling thread's, which pins itself.
    Pinned(Vec<usize>),
}

impl Threads {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Self::Free(count) => *count,
            Self::Pinned(cpus) => cpus.len(),
        }
    }
}

/// A runtime: one line of [`BACKENDS`].
pub struct Backend {
    /// Its name in a pipeline file.
    pub backend: Name,
    /// The same as text, also in `engine.json`.
    pub name: &'static str,
    /// Writes the engine's files.
    pub build: fn(&Build) -> Result<Built>,
    /// Loads what it built.
    pub load: fn(&Path, &Note, &Threads) -> Result<Box<dyn Engine>>,
    /// The runtime's own clock, where it has one here.
    pub clock: fn() -> Option<Clock>,
    /// Builds an engine once more whose inner values are outputs, of a runtime that shows outputs alone.
    pub show: Option<Show>,
}

/// Times an engine in the runtime's own way, in parts; runs of engines without one are timed from outside.
pub type Clock = fn(&Timing) -> Result<Metrics>;

/// Builds an engine of a model with more outputs as another one was built, and gives its note.
pub type Show = fn(&Build, &Note) -> Result<Note>;

/// How an engine is timed by its own clock.
pub struct Timing<'a> {
    /// The engine's folder.
    pub folder: &'a Path,
    /// What it says of itself.
    pub note: &'a Note,
    /// Batch sizes, in order.
    pub batches: &'a [usize],
    /// Runs and seconds.
    pub protocol: Protocol,
    /// Milliseconds before the clock starts, of trtexec.
    pub warmup_ms: u32,
    /// Whether the engine is launched as a CUDA graph.
    pub cuda_graph: bool,
    /// A folder for files that are needed meanwhile.
    pub scratch: &'a Path,
    /// Where to tell of it.
    pub tell: Tell<'a>,
}

impl Timing<'_> {
    /// Tells that the batch size of that index is begun.
    pub fn begin(&self, index: usize) {
        (self.tell)(Told::Progress {
            done: index as u64,
            total: self.batches.len() as u64,
            unit: "batches",
            message: &format!("batch {}", self.batches[index]),
        });
    }
}

/// All runtimes of this build.
pub const BACKENDS: &[Backend] = &[
    Backend {
        backend: Name::Onnxruntime,
        name: "onnxruntime",
        build: onnxruntime::build,
        load: onnxruntime::load,
        clock: || None,
        show: None,
    },
    Backend {
        backend: Name::Torch,
        name: libtorch::NAME,
        build: libtorch::build,
        load: libtorch::load,
        clock: libtorch::clock,
        show: Some(libtorch::show),
    },
    Backend {
        backend: Name::Tensorrt,
        name: "tensorrt",
        build: tensorrt::build,
        load: tensorrt::load,
        clock: || Some(tensorrt::time),
        show: Some(tensorrt::show),
    },
    #[cfg(feature = "tensorrt-rtx")]
    Backend {
        backend: Name::TensorrtRtx,
        name: "tensorrt-rtx",
        build: super::tensorrt_rtx::build,
        load: super::tensorrt_rtx::load,
        clock: || Some(super::tensorrt_rtx::time),
        show: None,
    },
];

/// Builds an engine with its `engine.json`.
///
/// # Errors
/// A runtime that this build is without; what the runtime refuses.
pub fn build(backend: Name, request: &Build) -> Result<Built> {
    let row = BACKENDS.iter().find(|row| row.backend == backend).ok_or_else(|| {
        Error::machine(format!("this qpipe-worker was built without {backend:?}"))
            .help("`make build-tensorrt-rtx` in qpipe's sources builds one with it (docs/tensorrt-rtx.md)")
    })?;
    let built = (row.build)(request)?;
    let path = request.folder.join(Note::FILE);
    let text = serde_json::to_vec_pretty(&built.note)
        .map_err(|error| Error::bug(format!("{}: {error}", path.display())))?;
    std::fs::write(&path, text).map_err(|error| Error::io(&path, &error))?;
    Ok(built)
}

/// The runtime's own clock for an engine, where its backend has one.
pub fn clock(note: &Note) -> Option<Clock> {
    (BACKENDS.iter().find(|row| row.name == note.backend)?.clock)()
}

/// How an engine is built once more with inner values as outputs, where its runtime shows outputs alone.
pub fn shows(note: &Note) -> Option<Show> {
    BACKENDS.iter().find(|row| row.name == note.backend)?.show
}

/// Loads an engine from its folder.
pub fn load(folder: &Path, threads: &Threads) -> Result<(Note, Box<dyn Engine>)> {
    let note = Note::read(folder)?;
    let engine = load_noted(folder, &note, threads)?;
    Ok((note, engine))
}

/// Loads the engine in `folder` of which `note` tells.
pub fn load_noted(folder: &Path, note: &Note, threads: &Threads) -> Result<Box<dyn Engine>> {
    let row = BACKENDS.iter().find(|row| row.name == note.backend).ok_or_else(|| {
        Error::machine(format!("this qpipe-worker cannot run engines of {}", note.backend))
    })?;
    (row.load)(folder, note, threads)
}

/// The layers of an ONNX file as its operators tell them.
pub(super) fn layers_of_onnx(path: &Path) -> Result<Vec<Layer>> {
    let model = onnx::read(path)?;
    let layers = model.graph.nodes.iter().map(|node| {
        let quantized = node.op_type.starts_with("QLinear")
            || node.op_type.starts_with("QGemm")
            || node.op_type.contains("Integer");
        let precision = if quantized { "int8" } else { "float32" };
        Layer {
            name: node.name.clone(),
            kind: node.op_type.clone(),
            precision: precision.to_owned(),
        }
    });
    Ok(layers.collect())
}
