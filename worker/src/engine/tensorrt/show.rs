//! Builds an engine once more, of a file with inner values among its outputs: TensorRT shows outputs alone.

use super::attempt::ENGINE;
use super::{Attempt, Attempts, Program, Source, build, gpu, layers, typed};
use crate::Result;
use crate::engine::{Build, Note};

/// Builds `request` as the engine `of` was built: with its flags and types.
///
/// # Errors
/// What TensorRT refuses.
pub fn show(request: &Build, of: &Note) -> Result<Note> {
    let program = Program::find()?;
    let gpu = gpu::used()?;
    let quantized = layers::has_pairs(&request.model.graph);
    let typed = typed::file(request, program.version, quantized)?;
    let note = Note::of(request.model, &of.backend, program.version.to_string(), ENGINE)?;
    let flags = of.on_gpu.as_ref().map(|on| on.flags.as_slice()).unwrap_or_default();
    let onnx = typed.as_deref().unwrap_or(request.path);
    let attempts = Attempts {
        program: &program,
        request,
        source: Source { onnx, note: &note, batches: None, more: flags },
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
