//! The table of runtimes, and what each can do.

use std::path::Path;

use qpipe::stages::build_engine::Backend as Name;

use super::{Layer, Note, onnxruntime};
use crate::graph::Model;
use crate::{Error, Result, onnx};

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
}

/// What was built.
pub struct Built {
    /// For `engine.json`.
    pub note: Note,
    /// What became of each layer.
    pub layers: Vec<Layer>,
}

/// An engine, loaded.
pub trait Engine {
    /// Runs `batch` images: floats `[batch, C, H, W]` to logits `[batch, classes]`, row by row.
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>>;
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
}

/// All runtimes of this build.
pub const BACKENDS: &[Backend] = &[
    Backend {
        backend: Name::Onnxruntime,
        name: "onnxruntime",
        build: onnxruntime::build,
        load: onnxruntime::load,
    },
    #[cfg(feature = "tensorrt-rtx")]
    Backend {
        backend: Name::TensorrtRtx,
        name: "tensorrt-rtx",
        build: super::tensorrt_rtx::build,
        load: super::tensorrt_rtx::load,
    },
];

/// Builds an engine with its `engine.json`; what became of each layer.
///
/// # Errors
/// A runtime that this build is without; what the runtime refuses.
pub fn build(backend: Name, request: &Build) -> Result<Vec<Layer>> {
    let row = BACKENDS.iter().find(|row| row.backend == backend).ok_or_else(|| {
        Error::machine(format!("this qpipe-worker was built without {backend:?}"))
            .help("build it with: cargo build --release --features qpipe-worker/tensorrt-rtx")
    })?;
    let built = (row.build)(request)?;
    let path = request.folder.join(Note::FILE);
    let text = serde_json::to_vec_pretty(&built.note)
        .map_err(|error| Error::bug(format!("{}: {error}", path.display())))?;
    std::fs::write(&path, text).map_err(|error| Error::io(&path, &error))?;
    Ok(built.layers)
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
