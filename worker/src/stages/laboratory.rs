//! Where a search has its candidates built, timed and compared.

use std::collections::BTreeMap;
use std::path::PathBuf;

use qpipe::stages::build_engine::{Backend, Precision};
use qpipe::stages::export_onnx::Batch;
use qpipe::stages::search::Search;

use super::Context;
use super::benchmark::WARMUP_MS;
use super::export_onnx;
use super::run_engine::run_engine;
use crate::analysis::{self, Images, Outcome, Run};
use crate::bench::{self, Clock, Protocol, Rounds, clock};
use crate::engine::tensorrt::{Caching, Wishes};
use crate::engine::{self, Build, Engine, Note, Threads, Timing, Told};
use crate::graph::Model;
use crate::quant::insert::insert;
use crate::quant::placement::{Plan, Selection};
use crate::search::{Lab, Set};
use crate::{Error, Result, onnx};

/// Rounds where nothing is said, of engines that run in this process, and of those that trtexec runs.
const ROUNDS: [u32; 2] = [15, 3];

/// What is selected but the layers at these places of `nodes`.
pub fn selection(whole: &Selection, nodes: &[usize], set: &Set) -> Selection {
    set.iter().fold(whole.clone(), |selection, &layer| selection.without(nodes[layer]))
}

/// Builds, times and compares candidates of a prepared float model.
pub struct Laboratory<'a, P> {
    context: &'a Context<'a>,
    config: &'a Search,
    float: &'a Model,
    /// Places pairs for a selection of nodes.
    place: P,
    selection: Selection,
    /// Nodes of the layers that a [`Set`] numbers.
    nodes: Vec<usize>,
    images: Images<'a>,
    quantized: Model,
    /// Folders of engines.
    engines: BTreeMap<Set, PathBuf>,
}

impl<'a, P: Fn(&Selection) -> Result<Plan>> Laboratory<'a, P> {
    /// For the layers at `nodes` of the model, all of which `selection` has.
    ///
    /// # Errors
    /// What `place` refuses.
    pub fn new(
        context: &'a Context<'a>,
        config: &'a Search,
        float: &'a Model,
        place: P,
        selection: Selection,
        nodes: Vec<usize>,
        images: Images<'a>,
    ) -> Result<Self> {
        let mut quantized = float.clone();
        insert(&mut quantized, &place(&selection)?)?;
        let engines = BTreeMap::new();
        Ok(Self { context, config, float, place, selection, nodes, images, quantized, engines })
    }

    /// CPU threads of the runtime.
    pub fn threads(&self) -> usize {
        self.config.threads.map_or(self.context.task.threads, |threads| threads as usize)
    }

    /// Name and version of the runtime, once an engine was built.
    pub fn runtime(&self) -> Result<(String, String)> {
        let folder = self.engines.values().next();
        let note = Note::read(folder.ok_or_else(|| Error::bug("no engine was built"))?)?;
        Ok((note.backend, note.runtime))
    }

    /// The model with these layers in float.
    fn model(&self, set: &Set) -> Result<Model> {
        if set.len() == self.nodes.len() {
            return Ok(self.float.clone());
        }
        let selection = selection(&self.selection, &self.nodes, set);
        let mut model = self.float.clone();
        insert(&mut model, &(self.place)(&selection)?)?;
        Ok(model)
    }

    /// Exports the model with these layers in float, and builds its engine.
    fn build(&self, set: &Set) -> Result<PathBuf> {
        let folder = self.context.task.scratch.join(format!("engine-{}", self.engines.len()));
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
        let mut model = self.model(set)?;
        export_onnx::finalize(&mut model, None, Some(self.config.target))?;
        export_onnx::fix_batch(&mut model, Batch::Fixed(self.config.batch))?;
        // Its weights may lie in a file of their own: all of it is gone once the engine is there.
        let scratch = &self.context.task.scratch;
        let place = tempfile::tempdir_in(scratch).map_err(|error| Error::io(scratch, &error))?;
        let path = place.path().join("model.onnx");
        super::write_model(&model, &path)?;
        let model = onnx::read(&path)?;
        let quantized = set.len() < self.nodes.len();
        let request = Build {
            path: &path,
            model: &model,
            folder: &folder,
            batch: self.config.batch,
            compute_capability: None,
            threads: self.context.task.threads,
            precision: if quantized { self.config.precision } else { self.float_precision() },
            saturate: false,
            tensorrt: Wishes {
                flags: self.config.flags.clone(),
                tune: false,
                timing_cache: Caching::Shared,
                min_batch: self.config.batch,
                max_batch: None,
            },
            // A builder says more than a search.
            tell: &|_| (),
        };
        engine::build(self.config.runtime(), &request)?;
        Ok(folder)
    }

    /// The types of the float engine: those that layers in float have in the others.
    fn float_precision(&self) -> Option<Precision> {
        if self.config.runtime() != Backend::Tensorrt {
            return None;
        }
        let single = self.config.precision == Some(Precision::Int8Fp32);
        Some(if single { Precision::Fp32 } else { Precision::Fp16 })
    }

    fn clock<'c>(&'c self, folder: &'c PathBuf, cpus: &[usize], rounds: u32) -> Result<Clock<'c>> {
        let batch = self.config.batch as usize;
        let note = Note::read(folder)?;
        if let Some(time) = engine::clock(&note) {
            let seconds = self.config.seconds / f64::from(rounds);
            return Ok(Box::new(move || {
                let metrics = time(&Timing {
                    folder,
                    note: &note,
                    batches: &[batch],
                    protocol: Protocol { warmup: self.config.warmup, iterations: 10, seconds },
                    warmup_ms: WARMUP_MS,
                    cuda_graph: true,
                    scratch: &self.context.task.scratch,
                    tell: &|_: Told| (),
                })?;
                let median = metrics["batches"][0]["latency_ms"]["median"].as_f64();
                median.ok_or_else(|| Error::bug("trtexec's times have no median"))
            }));
        }
        let (note, mut engine): (Note, Box<dyn Engine>) =
            engine::load(folder, &Threads::Pinned(cpus.to_vec()))?;
        let images = bench::noise(batch * note.input.iter().product::<usize>());
        clock(move || engine.run(&images, batch).map(drop), self.config.warmup)
    }

    /// Times engines on processors of their own; in a thread that is bound to one of them, since the simulation's are not to be.
    fn side_by_side(&self, folders: &[&PathBuf]) -> Result<Vec<Vec<f64>>> {
        let usual = ROUNDS[usize::from(self.config.runtime() == Backend::Tensorrt)];
        let least = self.config.rounds.unwrap_or(usual);
        let cpus = bench::cpus(self.threads()).map_err(|error| error.key("threads"))?;
        bench::pin(&cpus[..1])?;
        let clocks = folders.iter().map(|folder| self.clock(folder, &cpus, least));
        let mut clocks: Vec<Clock> = clocks.collect::<Result<_>>()?;
        let message = format!("{} engines timed", folders.len());
        let rounds = Rounds { least, seconds: self.config.seconds };
        bench::side_by_side(&mut clocks, rounds, &mut |part| {
            self.context.events.progress((100.0 * part) as u64, 100, "%", &message);
        })
    }
}

impl<P: Fn(&Selection) -> Result<Plan> + Sync> Lab for Laboratory<'_, P> {
    fn errors(&mut self, sets: &[Set]) -> Result<Vec<Outcome>> {
        let whole = |set: &Set| set.is_empty() || set.len() == self.nodes.len();
        let variants = sets.iter().filter(|set| !whole(set)).map(|set| self.model(set));
        let variants = variants.collect::<Result<Vec<Model>>>()?;
        let compared = analysis::compare(
            self.float,
            &self.quantized,
            &variants,
            &self.images,
            &|done, total| self.context.events.progress(done, total, "images", "errors"),
        )?;
        let mut own = compared.variants.into_iter();
        let outcomes = sets.iter().map(|set| match set {
            set if set.is_empty() => Some(compared.quantized),
            set if set.len() == self.nodes.len() => Some(compared.float),
            _ => own.next(),
        });
        let outcomes: Option<Vec<Outcome>> = outcomes.collect();
        outcomes.ok_or_else(|| Error::bug("a variant without an outcome"))
    }

    /// Runtimes round otherwise than the simulation, and saturate. `None` where each batch would be a process of its own.
    fn on_engines(&mut self, sets: &[Set]) -> Result<Option<Vec<Outcome>>> {
        let mut runs: Vec<Run> = Vec::new();
        for set in sets {
            let folder = self.engines.get(set);
            let folder = folder.ok_or_else(|| Error::bug("an engine that was not built"))?;
            if engine::clock(&Note::read(folder)?).is_some() {
                return Ok(None);
            }
            let (note, mut engine) = engine::load(folder, &Threads::Free(self.threads()))?;
            runs.push(Box::new(move |images| {
                let count = images.size()[0];
                let made = run_engine(engine.as_mut(), &note, images)?;
                let tensors = made.iter().zip(note.outputs()).map(|(values, (_, shape))| {
                    let behind = shape.iter().map(|extent| *extent as i64);
                    let shape: Vec<i64> = std::iter::once(count).chain(behind).collect();
                    Ok(tch::Tensor::f_from_slice(values)?.f_reshape(shape)?)
                });
                tensors.collect()
            }));
        }
        // Whole batches of the engine, so that none but the last is filled up.
        let batch = self.config.batch as usize;
        let batch_size = self.images.batch_size.next_multiple_of(batch);
        let images = Images { batch_size, ..self.images };
        let progress =
            |done, total| self.context.events.progress(done, total, "images", "errors of engines");
        Ok(Some(analysis::compare_runs(self.float, &mut runs, &images, &progress)?))
    }

    fn time(&mut self, sets: &[Set]) -> Result<Vec<Vec<f64>>> {
        for set in sets {
            if !self.engines.contains_key(set) {
                let done = self.engines.len() as u64;
                let most = u64::from(self.config.max_engines);
                self.context.events.progress(done, most, "engines", "built");
                let folder = self.build(set)?;
                self.engines.insert(set.clone(), folder);
            }
        }
        let folders: Vec<&PathBuf> = sets.iter().map(|set| &self.engines[set]).collect();
        let this = &*self;
        std::thread::scope(|scope| {
            let timed = scope.spawn(|| this.side_by_side(&folders)).join();
            timed.unwrap_or_else(|_| Err(Error::bug("the thread that times engines panicked")))
        })
    }
}
