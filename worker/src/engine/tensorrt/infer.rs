//! Runs an engine on images, for `evaluate`: a process of trtexec for each batch.
//!
//! TensorRT has no C interface that a program could open at run time, and its C++ classes differ from version to version, so images go in
//! through `--loadInputs` and logits come out through `--exportOutput`. A process takes most of its time to start, on the processor: a few run
//! at the same time.

use std::path::{Path, PathBuf};

use super::benchmark::with_origin;
use super::{Program, build, command, failure, gpu, outputs};
use crate::engine::{Engine, Note, Threads};
use crate::{Error, Result};

/// Processes at the same time, at most: each holds the engine in the memory of the GPU.
const AT_ONCE: usize = 4;

struct TensorRt {
    program: Program,
    engine: PathBuf,
    note: Note,
    scratch: tempfile::TempDir,
    at_once: usize,
}

/// Files of a run.
pub struct Files<'a> {
    /// The engine's.
    pub engine: &'a Path,
    /// Images, float `[batch, C, H, W]`, little endian. Its name in the folder where trtexec runs: in `--loadInputs` a comma of a path would
    /// end it, and a quote is refused.
    pub input: &'a str,
    /// Where outputs go ([`outputs`]).
    pub output: &'a Path,
}

/// An engine that is run by trtexec.
pub fn load(folder: &Path, note: &Note, threads: &Threads) -> Result<Box<dyn Engine>> {
    if note.on_gpu.as_ref().is_some_and(|on| on.made_up_ranges) {
        return Err(Error::user(
            "the engine computes with ranges that trtexec made up (precision = \"implicit\"): its outputs mean nothing",
        )
        .help("it is there to be timed; evaluate the engine of the model with Q/DQ pairs")
        .key("engine"));
    }
    if note.input_name.contains([',', '\'']) {
        return Err(Error::user(format!(
            "trtexec cannot be given images for the input `{}`: a comma or a quote in a name means something else to it",
            note.input_name
        ))
        .help("rename the model's input")
        .key("engine"));
    }
    let program = Program::find()?;
    gpu::used()?;
    let scratch = tempfile::tempdir().map_err(|error| Error::io(&std::env::temp_dir(), &error))?;
    let engine = folder.join(&note.file);
    let engine = std::path::absolute(&engine).map_err(|error| Error::io(&engine, &error))?;
    Ok(Box::new(TensorRt {
        program,
        engine,
        note: note.clone(),
        scratch,
        at_once: threads.count().clamp(1, AT_ONCE),
    }))
}

impl Engine for TensorRt {
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<Vec<f32>>> {
        self.process(images, batch, 0)
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn run_all(&mut self, batches: &[Vec<f32>], batch: usize) -> Result<Vec<Vec<Vec<f32>>>> {
        let own = &*self;
        let mut all = Vec::with_capacity(batches.len());
        for group in batches.chunks(own.at_once) {
            let made = std::thread::scope(|scope| {
                let mut started = Vec::with_capacity(group.len());
                for (place, images) in group.iter().enumerate() {
                    started.push(scope.spawn(move || own.process(images, batch, place)));
                }
                let ended = started.into_iter().map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(Error::bug("a thread of trtexec ended")))
                });
                ended.collect::<Vec<_>>()
            });
            for values in made {
                all.push(values?);
            }
        }
        Ok(all)
    }
}

impl TensorRt {
    /// A batch through a process of its own, whose files are those of `place`.
    fn process(&self, images: &[f32], batch: usize, place: usize) -> Result<Vec<Vec<f32>>> {
        build::check_batch(&self.note, batch)?;
        let folder = self.scratch.path();
        let at = |name: &str| folder.join(format!("{place}-{name}"));
        let (input, output) = (at("input.raw"), at("output.json"));
        let bytes: Vec<u8> = images.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(&input, bytes).map_err(|error| Error::io(&input, &error))?;
        let name = format!("{place}-input.raw");
        let files = Files { engine: &self.engine, input: &name, output: &output };
        let line = command::infer(self.program.version, &self.note, batch, &files);
        let ended = self.program.run_in(folder, &line, &at("run.log"), &mut |_| ())?;
        if !ended.status.success() {
            return Err(with_origin(
                failure::of(&self.program, "cannot run the engine", &ended, None),
                &self.note,
            ));
        }
        let text = std::fs::read(&output).map_err(|error| Error::io(&output, &error))?;
        values(&text, &self.note, batch)
    }
}

/// The values of each output in the file of `--exportOutput`: as many as the batch has.
fn values(text: &[u8], note: &Note, batch: usize) -> Result<Vec<Vec<f32>>> {
    let broken =
        |reason: String| Error::machine(format!("trtexec's --exportOutput file: {reason}"));
    let mut outputs = outputs::read(text).map_err(broken)?;
    let values = note.outputs().into_iter().map(|(name, shape)| {
        let found = outputs.iter_mut().find(|output| output.name == name);
        let values = found.ok_or_else(|| broken(format!("no output `{name}`")))?;
        let values = std::mem::take(&mut values.values);
        let expected: usize = shape.iter().product();
        if values.len() != batch * expected {
            return Err(broken(format!("{} values, expected {batch} × {expected}", values.len())));
        }
        Ok(values)
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_those_of_the_whole_batch() {
        let note = Note {
            version: 1,
            backend: "tensorrt".to_owned(),
            runtime: "8.5.3".to_owned(),
            file: "model.engine".to_owned(),
            batch: Some(2),
            input_name: "x".to_owned(),
            input: [1, 2, 2],
            output_name: "y".to_owned(),
            classes: 2,
            shape: Vec::new(),
            more: Vec::new(),
            ending: None,
            quantized: false,
            on_gpu: None,
            precision: None,
            processor: None,
        };
        // As 8.5 writes it.
        let text = b"[\n  { \"name\" : \"y\"\n  , \"dimensions\" : \"2x2\"\n  , \"values\" : [ 0.5, -1, 2e-05, 3 ]\n  }\n]\n";
        assert_eq!(values(text, &note, 2).unwrap(), [[0.5, -1.0, 2e-5, 3.0]]);
        assert!(values(text, &note, 3).unwrap_err().message.contains("4 values, expected 3 × 2"));
    }
}
