//! Calibration: the model over some images, a histogram for each tensor, `amax` by each method.

use std::collections::BTreeMap;

use qpipe::stages::calibrate::{Histogram as Mode, Method};
use rayon::prelude::*;

use super::observer::{Collector, Exact, Growing, NotFinite, Observed, Settings, amax};
use super::placement::watched;
use super::ranges::{Range, Ranges, VERSION};
use crate::data::{Dataset, Loader, Order, permutation};
use crate::graph::{Graph, Model};
use crate::interp::{self, Program};
use crate::{Error, Result, torch};

/// How to calibrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images used, fewer where the data set has fewer.
    pub samples: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Methods to compute.
    pub methods: Vec<Method>,
    /// Bins of a histogram.
    pub bins: u32,
    /// Percentile of |x| that method `percentile` keeps, in per cent.
    pub percentile: f64,
    /// How histograms grow.
    pub histogram: Mode,
    /// Chooses the images.
    pub seed: u64,
    /// Threads that load images.
    pub threads: usize,
}

/// Ranges of all values of a prepared model that some placement may quantize, from images of `dataset`
/// without their random transforms. `progress` is told of images done and images in all.
///
/// # Errors
/// A NaN or an infinity in a value, with its node and image; what data and model refuse.
pub fn calibrate(
    model: &Model,
    dataset: &Dataset,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<Ranges> {
    let tensors = watched(&model.graph);
    if tensors.is_empty() {
        return Err(Error::user("the model has no layer that can be quantized")
            .help("Conv, Gemm and MatMul with a constant weight can"));
    }
    let mut chosen = permutation(dataset.len(), options.seed, 0);
    chosen.truncate(options.samples);
    let watch = interp::Options { watch: tensors.clone(), ..interp::Options::default() };
    let mut run = Run {
        program: Program::compile(model, &watch)?,
        graph: &model.graph,
        tensors: &tensors,
        dataset,
        chosen,
        options,
    };
    let observed = run.observe(progress)?;
    let settings = Settings { percentile: options.percentile };
    let ranges = observed.par_iter().zip(&tensors).map(|(observed, tensor)| {
        let histogram = &observed.histogram;
        let methods = options.methods.iter();
        let by_method: BTreeMap<Method, f32> =
            methods.map(|&method| (method, amax(method, histogram, &settings))).collect();
        Range { tensor: tensor.clone(), abs_max: histogram.abs_max, amax: by_method }
    });
    Ok(Ranges {
        version: VERSION,
        samples: run.chosen.len(),
        histogram: options.histogram,
        bins: options.bins,
        percentile: options.percentile,
        tensors: ranges.collect(),
    })
}

/// Given a watched tensor's index and values.
type Observe<'a> = dyn FnMut(usize, &[f32]) -> Result<(), NotFinite> + 'a;

struct Run<'a> {
    program: Program,
    graph: &'a Graph,
    tensors: &'a [String],
    dataset: &'a Dataset,
    chosen: Vec<usize>,
    options: &'a Options,
}

impl Run<'_> {
    fn observe(&mut self, progress: &dyn Fn(u64, u64)) -> Result<Vec<Observed>> {
        let samples = self.chosen.len() as u64;
        let bins = self.options.bins as usize;
        let mode = self.options.histogram;
        let collector = |_: &String| -> Box<dyn Collector> {
            match mode {
                Mode::Exact => Box::new(Exact::new(bins)),
                Mode::PytorchQuantization => Box::new(Growing::new(bins)),
            }
        };
        let mut collectors: Vec<Box<dyn Collector>> = self.tensors.iter().map(collector).collect();
        self.pass(&mut |tensor, values| collectors[tensor].add(values), &|done| {
            progress(done, samples);
        })?;
        Ok(collectors.into_par_iter().map(Collector::finish).collect())
    }

    /// Runs all images once; `observe` is given each watched tensor's index and values.
    fn pass(&mut self, observe: &mut Observe, progress: &dyn Fn(u64)) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (batch, threads) = (self.options.batch_size, self.options.threads);
        let order = Order::Subset(self.chosen.clone());
        let mut done = 0;
        for images in Loader::new(self.dataset, batch, order, false, threads) {
            let images = images?.images;
            let count = images.size()[0] as usize;
            let (graph, tensors, dataset) = (self.graph, self.tensors, self.dataset);
            let indices = &self.chosen[done..done + count];
            self.program.forward(&[images], interp::Mode::Eval, &mut |tensor, values| {
                torch::with_f32(values, |values| observe(tensor, values))?
                    .map_err(|bad| not_finite(graph, dataset, &tensors[tensor], bad.value, indices))
            })?;
            done += count;
            progress(done as u64);
        }
        Ok(())
    }
}

/// Names the node that made a NaN or an infinity, and the images of its batch.
fn not_finite(
    graph: &Graph,
    dataset: &Dataset,
    tensor: &str,
    value: f32,
    indices: &[usize],
) -> Error {
    let producer = graph.producers().get(tensor).map(|&index| graph.nodes[index].place());
    let place = producer.unwrap_or_else(|| "input of the graph".to_owned());
    let images = match indices {
        [only] => dataset.name(*only),
        [first, .., last] => format!(
            "one of {} images, {} to {}",
            indices.len(),
            dataset.name(*first),
            dataset.name(*last)
        ),
        [] => "no image".to_owned(),
    };
    Error::user(format!("{place}: tensor \"{tensor}\" has a {value} ({images})")).help(
        "a model whose training diverged gives such values; batch_size = 1 in the calibrate stage names the image",
    )
}
