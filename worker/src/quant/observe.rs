//! The passes of a calibration: images through the model, each watched value seen when it is made.

use std::time::{Duration, Instant};

use qpipe::stages::calibrate::Histogram as Mode;
use rayon::prelude::*;
use tch::Tensor;

use super::best::Judge;
use super::calibrate::{Options, Times};
use super::observer::{Collector, Exact, Growing, Observed, OnDevice};
use crate::data::{Dataset, Loader, Order};
use crate::graph::{Graph, Model};
use crate::interp::{self, Program};
use crate::torch::{Mark, Stopwatch};
use crate::{Error, Result, torch};

/// Batches that a GPU is ahead of what is asked of it.
const AHEAD: usize = 16;

/// Sees the values of a pass.
pub(super) trait Observer {
    /// Values of the watched tensor of that index, of a batch.
    fn see(&mut self, run: &Seen, tensor: usize, values: &Tensor) -> Result<()>;

    /// A batch is done.
    fn batch_is_done(&mut self, _: &Seen) -> Result<()> {
        Ok(())
    }
}

/// What is run.
pub(super) struct Seen<'a> {
    graph: &'a Graph,
    tensors: &'a [String],
    dataset: &'a Dataset,
    /// The images of the batch.
    images: &'a [usize],
}

/// Runs images of a data set through a model.
pub(super) struct Run<'a> {
    program: Program,
    graph: &'a Graph,
    tensors: &'a [String],
    dataset: &'a Dataset,
    options: &'a Options,
    load: Duration,
    /// Of whole batches, what is seen of values included.
    batches: Stopwatch,
    /// Of what is seen of values alone.
    seeing: Stopwatch,
}

impl<'a> Run<'a> {
    /// Compiles a prepared model; `tensors` are watched.
    pub fn new(
        model: &'a Model,
        tensors: &'a [String],
        dataset: &'a Dataset,
        options: &'a Options,
    ) -> Result<Self> {
        let watch = interp::Options { watch: tensors.to_vec(), ..interp::Options::default() };
        Ok(Self {
            program: Program::compile(model, &watch)?,
            graph: &model.graph,
            tensors,
            dataset,
            options,
            load: Duration::ZERO,
            batches: Stopwatch::default(),
            seeing: Stopwatch::default(),
        })
    }

    /// What the passes so far took.
    pub fn times(&mut self) -> Times {
        let (batches, count) = (self.batches.total(), self.seeing.total());
        let forward = batches.saturating_sub(count);
        Times { load: self.load, forward, count, ..Times::default() }
    }

    /// Counts all tensors' values in one pass; also whether all of several images were the same.
    pub fn observe(&mut self, chosen: &[usize], progress: &dyn Fn(u64)) -> Result<(Counts, bool)> {
        let bins = self.options.bins as usize;
        if !self.options.on_device || self.options.histogram != Mode::Exact {
            let mut counts = OnHost::new(self.tensors.len(), bins, self.options.histogram);
            let alike = self.pass(chosen, &mut counts, progress)?;
            return Ok((Counts::Host(counts), alike));
        }
        let counts = OnDevice::new(self.tensors.len(), bins, self.program.device())?;
        let mut counts = Ahead { counts, begun: Vec::new(), bad: None };
        let alike = self.pass(chosen, &mut counts, progress).and_then(|alike| {
            counts.ask()?;
            Ok(alike)
        });
        match &counts.bad {
            Some(images) => Err(self.blame(images)),
            None => Ok((Counts::Device(counts.counts), alike?)),
        }
    }

    /// Names what is not finite in a batch: it is run again, and looked at value by value.
    fn blame(&mut self, images: &[usize]) -> Error {
        let mut counts =
            OnHost::new(self.tensors.len(), self.options.bins as usize, self.options.histogram);
        let again = self.pass(images, &mut counts, &|_| {});
        let found = again.err().unwrap_or_else(|| {
            Error::user(format!(
                "a value was a NaN or an infinity ({})",
                names(self.dataset, images)
            ))
        });
        if found.help.is_some() { found } else { found.help(NOT_FINITE) }
    }

    /// Runs `chosen` images once. Returns whether there were several, all of them the same.
    pub fn pass(
        &mut self,
        chosen: &[usize],
        observer: &mut dyn Observer,
        progress: &dyn Fn(u64),
    ) -> Result<bool> {
        let _no_grad = tch::no_grad_guard();
        let (batch, threads) = (self.options.batch_size, self.options.threads);
        let device = self.program.device();
        let mut first: Option<Tensor> = None;
        let mut alike = chosen.len() > 1;
        let mut done = 0;
        let mut loader =
            Loader::new(self.dataset, batch, Order::Subset(chosen.to_vec()), false, threads);
        loop {
            let asked = Instant::now();
            let Some(images) = loader.next() else { break };
            let images = images?.images;
            self.load += asked.elapsed();
            let shape = images.size();
            let indices = &chosen[done..done + shape[0] as usize];
            let seen = Seen {
                graph: self.graph,
                tensors: self.tensors,
                dataset: self.dataset,
                images: indices,
            };
            if alike {
                let first = match &first {
                    Some(first) => first,
                    None => first.insert(images.f_narrow_copy(0, 0, 1)?),
                };
                alike = first.f_expand_as(&images)?.f_equal(&images)?;
            }
            let mut observed = Ok(());
            let begin = Mark::set(device);
            let seeing = &mut self.seeing;
            let made =
                self.program.forward(&[images], interp::Mode::Eval, &mut |tensor, values| {
                    let begin = Mark::set(device);
                    observed = observer.see(&seen, tensor, values);
                    seeing.add(begin, Mark::set(device));
                    // It is told below, without what forward puts before it.
                    if observed.is_ok() { Ok(()) } else { Err(Error::bug("observed")) }
                });
            observed?;
            made.map_err(|error| does_not_fit(error, self.dataset, &shape, indices))?;
            self.batches.add(begin, Mark::set(device));
            observer.batch_is_done(&seen)?;
            done += indices.len();
            progress(done as u64);
        }
        Ok(alike)
    }
}

/// What was counted of all tensors.
pub(super) enum Counts {
    /// By this program.
    Host(OnHost),
    /// Where the tensors were.
    Device(OnDevice),
}

impl Counts {
    /// What is known of each tensor, with histograms of `bins` bins.
    pub fn finish(self, bins: usize) -> Result<Vec<Observed>> {
        match self {
            Self::Host(counts) => Ok(counts.0.into_par_iter().map(Collector::finish).collect()),
            Self::Device(counts) => counts.finish(bins),
        }
    }
}

/// Counts what is copied from the device, if it is not the CPU.
pub(super) struct OnHost(Vec<Box<dyn Collector>>);

impl OnHost {
    fn new(tensors: usize, bins: usize, mode: Mode) -> Self {
        let collector = |_| -> Box<dyn Collector> {
            match mode {
                Mode::Exact => Box::new(Exact::new(bins)),
                Mode::PytorchQuantization => Box::new(Growing::new(bins)),
            }
        };
        Self((0..tensors).map(collector).collect())
    }
}

impl Observer for OnHost {
    fn see(&mut self, run: &Seen, tensor: usize, values: &Tensor) -> Result<()> {
        torch::with_f32(values, |values| self.0[tensor].add(values))?
            .map_err(|bad| not_finite(run, tensor, bad.value))
    }
}

/// Counts where the tensors are, and asks only after some batches whether all values were finite.
struct Ahead {
    counts: OnDevice,
    /// Batches that were not asked about: their images, and the answer on the device.
    begun: Vec<(Vec<usize>, Tensor)>,
    /// The images of the first batch with a value that is not finite.
    bad: Option<Vec<usize>>,
}

impl Ahead {
    fn ask(&mut self) -> Result<()> {
        let (images, answers): (Vec<_>, Vec<_>) = self.begun.drain(..).unzip();
        if answers.is_empty() {
            return Ok(());
        }
        let answers = Tensor::f_stack(&answers, 0)?.f_to_device(tch::Device::Cpu)?;
        let finite = Vec::<bool>::try_from(answers)?;
        self.bad =
            images.into_iter().zip(finite).find(|(_, finite)| !finite).map(|(images, _)| images);
        // The run looks at what is bad, and tells it.
        if self.bad.is_some() { Err(Error::bug("not finite")) } else { Ok(()) }
    }
}

impl Observer for Ahead {
    fn see(&mut self, _: &Seen, tensor: usize, values: &Tensor) -> Result<()> {
        self.counts.add(tensor, values)
    }

    fn batch_is_done(&mut self, run: &Seen) -> Result<()> {
        self.begun.push((run.images.to_vec(), self.counts.all_finite()?));
        if self.begun.len() < AHEAD { Ok(()) } else { self.ask() }
    }
}

impl Observer for Judge {
    fn see(&mut self, _: &Seen, tensor: usize, values: &Tensor) -> Result<()> {
        self.add(tensor, values)
    }
}

/// What a model refuses of images, with what was given.
fn does_not_fit(error: Error, dataset: &Dataset, shape: &[i64], indices: &[usize]) -> Error {
    let extents: Vec<String> = shape[1..].iter().map(i64::to_string).collect();
    let named = indices.first().map_or(String::new(), |&index| dataset.name(index));
    let place = format!("calibration images of {}, such as {named}", extents.join("×"));
    let help = "the data set's `transform` and `color` decide what a model is given: { resize = [height, width] } for one size";
    let error = error.at(place).key("data");
    if error.help.is_some() { error } else { error.help(help) }
}

/// What to do about a NaN or an infinity.
const NOT_FINITE: &str = "a model whose training diverged gives such values; batch_size = 1 in the calibrate stage names the image";

/// Names the node that made a NaN or an infinity, and the images of its batch.
fn not_finite(run: &Seen, tensor: usize, value: f32) -> Error {
    let (graph, tensor) = (run.graph, &run.tensors[tensor]);
    let producer = graph.producers().get(tensor.as_str()).map(|&index| graph.nodes[index].place());
    let key = if producer.is_some() { "model" } else { "data" };
    let place = producer.unwrap_or_else(|| "input of the graph".to_owned());
    let images = names(run.dataset, run.images);
    let message = format!("{place}: tensor \"{tensor}\" has a {value} ({images})");
    Error::user(message).help(NOT_FINITE).key(key)
}

/// The images of a batch.
fn names(dataset: &Dataset, images: &[usize]) -> String {
    match images {
        [only] => dataset.name(*only),
        [first, .., last] => format!(
            "one of {} images, {} to {}",
            images.len(),
            dataset.name(*first),
            dataset.name(*last)
        ),
        [] => "no image".to_owned(),
    }
}
