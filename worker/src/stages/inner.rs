//! Inner values of an engine whose runtime shows outputs alone: the engine is built once more, with them as outputs.

use std::collections::HashMap;
use std::path::Path;

use tch::Tensor;

use super::Context;
use crate::analysis::{Budget, Comparison, Seen, Step};
use crate::engine::shown::{seams, with_outputs};
use crate::engine::tensorrt::{Caching, Wishes};
use crate::engine::{self, Build, Note, Show, Threads};
use crate::graph::Model;
use crate::{Error, Result, onnx, torch};

/// Values that are held at once, at most; a runtime may write them as text.
const MOST: usize = 1 << 24;

/// An engine, and what it is compared with.
pub struct Inner<'a> {
    /// The stage.
    pub context: &'a Context<'a>,
    /// The engine's folder.
    pub engine: &'a Path,
    /// The file that it was built from.
    pub exported: &'a Model,
    /// The model in simulation, of a free batch.
    pub reference: &'a Model,
    /// Values that both have.
    pub names: &'a [String],
    /// Images `[N, C, H, W]`, of which as many are used as there is room for.
    pub images: &'a Tensor,
}

impl Inner<'_> {
    /// Compares what layers read, value by value. `None`: the engine's runtime cannot be asked so, or there is nothing between input and outputs.
    ///
    /// # Errors
    /// What the runtime refuses to build or to run.
    pub fn compare(&self) -> Result<Option<Comparison>> {
        let note = Note::read(self.engine)?;
        let Some(show) = engine::shows(&note) else { return Ok(None) };
        let names = seams(self.exported, self.names);
        if names.is_empty() {
            return Ok(None);
        }
        let (images, expected) = self.simulated(&names)?;
        let batch = images.size()[0];
        // A value without the batch in front is none that an image gives.
        let of_images = names.into_iter().filter_map(|name| {
            let extents = expected.get(&name)?.size();
            (extents.len() > 1 && extents[0] == batch).then_some((name, extents))
        });
        let values: Vec<(String, Vec<i64>)> = of_images.collect();
        let found = self.run(&note, show, &images, &values)?;
        let mut comparison =
            Comparison::new("the engine, built once more with inner values as outputs,");
        comparison.add(&expected, &found.into())?;
        Ok(Some(comparison))
    }

    /// Says of an engine that was refused which value is lost first.
    pub fn explain(&self, refused: Error, budget: Budget) -> Error {
        if !Note::read(self.engine).is_ok_and(|note| engine::shows(&note).is_some()) {
            return refused;
        }
        let told = format!("{}; looking for where it is lost", refused.message);
        self.context.events.log(told);
        let more = match self.compare() {
            Ok(None) => return refused,
            Ok(Some(mut comparison)) => match comparison.hold(self.exported, budget) {
                Err(first) => {
                    let message = format!(
                        "{}. The first value that is lost: {}",
                        refused.message, first.message
                    );
                    return Error { message, ..first };
                }
                Ok(()) => {
                    let is_inner = |step: &&Step| !self.exported.graph.is_output(&step.tensor);
                    format!(
                        "built once more with {} inner values as outputs it computes all of them within the budget: a kernel or a fusion of this build alone is at fault; build it again, or with `tune = true`",
                        comparison.values.iter().filter(is_inner).count()
                    )
                }
            },
            Err(error) => format!("its inner values could not be looked at: {}", error.message),
        };
        let help = refused.help.iter().cloned().chain([more]).collect::<Vec<_>>().join("; ");
        refused.help(help)
    }

    /// Images for which there is room, and all compared values for them.
    fn simulated(&self, names: &[String]) -> Result<(Tensor, HashMap<String, Tensor>)> {
        let outputs = self.exported.graph.outputs.iter().map(|output| &output.name);
        let watched: Vec<String> = names.iter().chain(outputs).cloned().collect();
        let mut reference = Seen::new(self.reference, &watched)?;
        let first = self.images.f_narrow(0, 0, 1)?;
        let (_, values) = reference.run(&first)?;
        let each = values.values().map(Tensor::numel).sum::<usize>().max(1);
        let count = (MOST / each).clamp(1, self.images.size()[0] as usize);
        if count == 1 {
            return Ok((first, values));
        }
        let images = self.images.f_narrow(0, 0, count as i64)?;
        let (_, values) = reference.run(&images)?;
        Ok((images, values))
    }

    /// What the engine that is built gives for `images`: its outputs and `values`, by name.
    fn run(
        &self,
        note: &Note,
        show: Show,
        images: &Tensor,
        values: &[(String, Vec<i64>)],
    ) -> Result<HashMap<String, Tensor>> {
        let context = self.context;
        let beside = context.folder();
        let folder = tempfile::tempdir_in(beside).map_err(|error| Error::io(beside, &error))?;
        let batch = images.size()[0] as usize;
        let (model, names) = with_outputs(self.exported, batch as u32, values)?;
        let path = folder.path().join("shown.onnx");
        onnx::write(&model, &path)?;
        // As the engine itself was built; other stages may run beside this one, so that its times are no measure for others.
        let timing_cache = match &note.on_gpu {
            Some(on) if on.timing_cache => Caching::Read,
            _ => Caching::Off,
        };
        let tell = |told: engine::Told| context.events.told(told);
        let built = show(
            &Build {
                path: &path,
                model: &model,
                folder: folder.path(),
                batch: batch as u32,
                compute_capability: None,
                threads: context.task.threads,
                precision: note.precision,
                saturate: false,
                tensorrt: Wishes { timing_cache, ..Wishes::default() },
                tell: &tell,
            },
            note,
        )?;
        let threads = Threads::Free(context.task.threads);
        let mut engine = engine::load_noted(folder.path(), &built, &threads)?;
        let floats = torch::tensor_data(images)?.to_f32()?;
        let made = engine.run(&floats, batch)?;
        let found =
            names.into_iter().zip(built.outputs()).zip(made).map(|((name, (_, shape)), made)| {
                let shape: Vec<i64> =
                    std::iter::once(batch).chain(shape).map(|n| n as i64).collect();
                Ok((name, Tensor::f_from_slice(&made)?.f_reshape(&shape)?))
            });
        found.collect()
    }
}
