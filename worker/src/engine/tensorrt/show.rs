//! Builds an engine once more, of a file with inner values among its outputs: TensorRT shows outputs alone.

use super::attempt::ENGINE;
use super::pairs::Pairs;
use super::typed::{self, Typed};
use super::{Attempt, Attempts, Program, Source, build, gpu};
use crate::Result;
use crate::engine::{Build, Note};

/// Builds `request` as the engine `of` was built: with its flags and types.
///
/// # Errors
/// What TensorRT refuses.
pub fn show(request: &Build, of: &Note) -> Result<Note> {
    let program = Program::find()?;
    let gpu = gpu::used()?;
    let quantized = Pairs::of(&request.model.graph).any();
    let typed = typed::file(request, program.version, quantized)?;
    let note = Note::of(request.model, &of.backend, program.version.to_string(), ENGINE)?;
    let flags = of.on_gpu.as_ref().map(|on| on.flags.as_slice()).unwrap_or_default();
    let onnx = typed.as_ref().map_or_else(|| request.path.to_owned(), Typed::path);
    let attempts = Attempts {
        program: &program,
        request,
        source: Source { onnx: &onnx, note: &note, batches: None, more: flags },
        cache: build::cache(request, &program, &gpu),
    };
    attempts.run(&Attempt {
        folder: request.folder,
        flags: Vec::new(),
        timed: false,
        title: "with inner values: ".to_owned(),
    })?;
    Ok(note)
}
