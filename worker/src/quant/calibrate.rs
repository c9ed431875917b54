//! Calibration: the model over some images, a histogram for each tensor, `amax` by each method.
//!
//! One pass, in which each tensor is counted when it is made and then forgotten, so that memory does not depend on the count of
//! images. Only method `best` runs some of the images again.

use qpipe::stages::calibrate::{Histogram as Mode, Method};
use rayon::prelude::*;
use tch::Tensor;

use super::best::Judge;
use super::observer::{Collector, Exact, Growing, Observed, Settings, amax};
use super::placement::watched;
use super::ranges::{Calibration, Range, Ranges, VERSION};
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
    /// Images of the second pass, which method `best` makes.
    pub best_samples: usize,
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

/// What a calibration found.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The ranges.
    pub ranges: Ranges,
    /// More than one image was run, and all of them were the same.
    pub images_alike: bool,
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
) -> Result<Calibrated> {
    let tensors = watched(&model.graph);
    if tensors.is_empty() {
        return Err(Error::user("the model has no layer that can be quantized")
            .help("Conv, Gemm and MatMul with a constant weight can"));
    }
    let mut chosen = permutation(dataset.len(), options.seed, 0);
    chosen.truncate(options.samples);
    let best = options.methods.contains(&Method::Best);
    let second = if best { chosen.len().min(options.best_samples) } else { 0 };
    let total = (chosen.len() + second) as u64;
    let watch = interp::Options { watch: tensors.clone(), ..interp::Options::default() };
    let mut run = Run {
        program: Program::compile(model, &watch)?,
        graph: &model.graph,
        tensors: &tensors,
        dataset,
        options,
    };
    let (observed, images_alike) = run.observe(&chosen, &|done| progress(done, total))?;
    let methods = histogram_methods(&options.methods);
    let settings = Settings { percentile: options.percentile };
    let ranges = observed.par_iter().zip(&tensors).map(|(observed, tensor)| Range {
        tensor: tensor.clone(),
        min: Some(observed.extent.min()),
        max: Some(observed.extent.max()),
        amax: methods
            .iter()
            .map(|&method| (method, amax(method, &observed.histogram, &settings)))
            .collect(),
        error: None,
    });
    let mut ranges: Vec<Range> = ranges.collect();
    if best {
        let mut judge = Judge::new(model, &ranges)?;
        let before = chosen.len() as u64;
        run.pass(&chosen[..second], &mut |tensor, values, _| judge.add(tensor, values), &|done| {
            progress(before + done, total);
        })?;
        judge.finish(&mut ranges);
    }
    let calibration = Calibration {
        samples: chosen.len(),
        histogram: options.histogram,
        bins: options.bins,
        percentile: options.percentile,
    };
    let ranges = Ranges { version: VERSION, calibration: Some(calibration), tensors: ranges };
    Ok(Calibrated { ranges, images_alike })
}

/// Those methods that choose by the histogram; all, where `best` has no other beside it.
fn histogram_methods(methods: &[Method]) -> Vec<Method> {
    let by_histogram = |method: &Method| Method::ALL.contains(method);
    let named: Vec<Method> = methods.iter().copied().filter(by_histogram).collect();
    if named.is_empty() { Method::ALL.to_vec() } else { named }
}

/// Given a watched tensor's index, its values and the images of the batch.
type Observe<'a> = dyn FnMut(usize, &Tensor, &[usize]) -> Result<()> + 'a;

struct Run<'a> {
    program: Program,
    graph: &'a Graph,
    tensors: &'a [String],
    dataset: &'a Dataset,
    options: &'a Options,
}

impl Run<'_> {
    /// What is known of each tensor after one pass, and whether all of several images were the same.
    fn observe(
        &mut self,
        chosen: &[usize],
        progress: &dyn Fn(u64),
    ) -> Result<(Vec<Observed>, bool)> {
        let (graph, tensors, dataset) = (self.graph, self.tensors, self.dataset);
        let bins = self.options.bins as usize;
        let mode = self.options.histogram;
        let collector = |_: &String| -> Box<dyn Collector> {
            match mode {
                Mode::Exact => Box::new(Exact::new(bins)),
                Mode::PytorchQuantization => Box::new(Growing::new(bins)),
            }
        };
        let mut collectors: Vec<Box<dyn Collector>> = tensors.iter().map(collector).collect();
        let mut observe = |tensor: usize, values: &Tensor, indices: &[usize]| {
            torch::with_f32(values, |values| collectors[tensor].add(values))?
                .map_err(|bad| not_finite(graph, dataset, &tensors[tensor], bad.value, indices))
        };
        let alike = self.pass(chosen, &mut observe, progress)?;
        Ok((collectors.into_par_iter().map(Collector::finish).collect(), alike))
    }

    /// Runs `chosen` images once. Returns whether there were several, all of them the same.
    fn pass(
        &mut self,
        chosen: &[usize],
        observe: &mut Observe,
        progress: &dyn Fn(u64),
    ) -> Result<bool> {
        let _no_grad = tch::no_grad_guard();
        let (batch, threads) = (self.options.batch_size, self.options.threads);
        let order = Order::Subset(chosen.to_vec());
        let mut first: Option<Tensor> = None;
        let mut alike = chosen.len() > 1;
        let mut done = 0;
        for images in Loader::new(self.dataset, batch, order, false, threads) {
            let images = images?.images;
            let indices = &chosen[done..done + images.size()[0] as usize];
            if alike {
                let first = match &first {
                    Some(first) => first,
                    None => first.insert(images.f_narrow_copy(0, 0, 1)?),
                };
                alike = first.f_expand_as(&images)?.f_equal(&images)?;
            }
            let mut observed = Ok(());
            let shape = images.size();
            let made =
                self.program.forward(&[images], interp::Mode::Eval, &mut |tensor, values| {
                    observed = observe(tensor, values, indices);
                    // It is told below, without what forward puts before it.
                    if observed.is_ok() { Ok(()) } else { Err(Error::bug("observed")) }
                });
            observed?;
            made.map_err(|error| does_not_fit(error, self.dataset, &shape, indices))?;
            done += indices.len();
            progress(done as u64);
        }
        Ok(alike)
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
