//! The table of runtimes, and what each can do.

use std::path::Path;

use qpipe::stages::build_engine::Backend as Name;
use qpipe::stages::contract::Metrics;

use super::{Layer, Note, onnxruntime, tensorrt};
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
    /// Times an engine with the runtime's own program, where it has one; `None`: runs are timed from outside.
    pub time: Option<fn(&tensorrt::Timing) -> Result<Metrics>>,
}

/// All runtimes of this build.
pub const BACKENDS: &[Backend] = &[
    Backend {
        backend: Name::Onnxruntime,
        name: "onnxruntime",
        build: onnxruntime::build,
        load: onnxruntime::load,
        time: None,
    },
    Backend {
        backend: Name::Tensorrt,
        name: "tensorrt",
        build: tensorrt::build,
        load: tensorrt::load,
        time: Some(tensorrt::time),
    },
    #[cfg(feature = "tensorrt-rtx")]
    Backend {
        backend: Name::TensorrtRtx,
        name: "tensorrt-rtx",
        build: super::tensorrt_rtx::build,
        load: super::tensorrt_rtx::load,
        time: None,
    },
];

/// Builds an engine with its `engine.json`.
///
/// # Errors
/// A runtime that this build is without; what the runtime refuses.
pub fn build(backend: Name, request: &Build) -> Result<Built> {
    let row = BACKENDS.iter().find(|row| row.backend == backend).ok_or_else(|| {
        Error::machine(format!("this qpipe-worker was built without {backend:?}"))
            .help("build it with: cargo build --release --features qpipe-worker/tensorrt-rtx")
    })?;
    let built = (row.build)(request)?;
    let path = request.folder.join(Note::FILE);
    let text = serde_json::to_vec_pretty(&built.note)
        .map_err(|error| Error::bug(format!("{}: {error}", path.display())))?;
    std::fs::write(&path, text).map_err(|error| Error::io(&path, &error))?;
    Ok(built)
}

/// The runtime's own clock for an engine, where its backend has one.
pub fn timer(note: &Note) -> Option<fn(&tensorrt::Timing) -> Result<Metrics>> {
    BACKENDS.iter().find(|row| row.name == note.backend)?.time
}

/// Loads an engine from its folder.
pub fn load(folder: &Path, threads: &Threads) -> Result<(Note, Box<dyn Engine>)> {
    let note = Note::read(folder)?;
    let row = BACKENDS.iter().find(|row| row.name == note.backend).ok_or_else(|| {
        Error::machine(format!("this qpipe-worker cannot run engines of {}", note.backend))
    })?;
    let engine = (row.load)(folder, &note, threads)?;
    Ok((note, engine))
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
