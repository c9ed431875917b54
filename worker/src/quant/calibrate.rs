//! Calibration: the model over some images, a histogram for each tensor, `amax` by each method.
//!
//! One pass, in which each tensor is counted when it is made and then forgotten, so that memory does not depend on the count of
//! images. Only method `best` runs some of the images again.

use qpipe::stages::calibrate::{Histogram as Mode, Method};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::best::Judge;
use super::observe::Run;
use super::observer::{Settings, amax};
use super::placement::watched;
use super::ranges::{Calibration, Range, Ranges, VERSION};
use crate::data::{Dataset, permutation};
use crate::graph::Model;
use crate::{Error, Result, interp, onnx};

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
    /// Count in mode `exact` where the tensors are, by libtorch's operators: for GPUs. The counts are the same.
    pub on_device: bool,
}

/// What a calibration found.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The ranges.
    pub ranges: Ranges,
    /// More than one image was run, and all of them were the same.
    pub images_alike: bool,
    /// What its parts took.
    pub times: Times,
}

/// What the parts of a calibration took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Waiting for images.
    pub load: Duration,
    /// The model, on its device.
    pub forward: Duration,
    /// Counting, where it was done.
    pub count: Duration,
    /// From counts to the methods' `amax`.
    pub reduce: Duration,
    /// The second pass of method `best`.
    pub best: Duration,
}

impl Times {
    /// The line of the log.
    pub fn line(&self) -> String {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let best = match self.best {
            Duration::ZERO => String::new(),
            best => format!(", best {}", seconds(best)),
        };
        format!(
            "load {}, forward {}, count {}, reduce {}{best}",
            seconds(self.load),
            seconds(self.forward),
            seconds(self.count),
            seconds(self.reduce)
        )
    }
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
    let mut run = Run::new(model, &tensors, dataset, options)?;
    let (counted, images_alike) = run.observe(&chosen, &|done| progress(done, total))?;
    let began = Instant::now();
    let observed = counted.finish(options.bins as usize)?;
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
    let mut times = Times { reduce: began.elapsed(), ..run.times() };
    if best {
        let began = Instant::now();
        let mut judge = Judge::new(model, &ranges)?;
        let before = chosen.len() as u64;
        run.pass(&chosen[..second], &mut judge, &|done| progress(before + done, total))?;
        judge.finish(&mut ranges);
        times.best = began.elapsed();
    }
    let calibration = Calibration {
        samples: chosen.len(),
        histogram: options.histogram,
        bins: options.bins,
        percentile: options.percentile,
    };
    let ranges = Ranges { version: VERSION, calibration: Some(calibration), tensors: ranges };
    Ok(Calibrated { ranges, images_alike, times })
}

/// Refuses a prepared model that cannot be calibrated, before a data set is opened: one with a node that cannot be executed, or with several
/// inputs.
///
/// # Errors
/// The node with its operator, or the inputs; what to do instead.
pub fn check_calibration(model: &Model) -> Result<()> {
    onnx::check_numbers(model)?;
    interp::check_executable(model)?;
    check_inputs(model)
}

/// Refuses a model with other than one input, which is what images are fed to.
///
/// # Errors
/// The inputs, and what to do instead.
pub fn check_inputs(model: &Model) -> Result<()> {
    let names: Vec<&str> = model.graph.inputs.iter().map(|input| input.name.as_str()).collect();
    if names.len() == 1 {
        return Ok(());
    }
    Err(Error::user(format!(
        "the model has {} inputs ({}): calibration feeds images to one",
        names.len(),
        names.join(", ")
    ))
    .help("give `insert-qdq` ranges of your own: `ranges = { file = … }`, or those of a `command`"))
}

/// Those methods that choose by the histogram; all, where `best` has no other beside it.
fn histogram_methods(methods: &[Method]) -> Vec<Method> {
    let by_histogram = |method: &Method| Method::ALL.contains(method);
    let named: Vec<Method> = methods.iter().copied().filter(by_histogram).collect();
    if named.is_empty() { Method::ALL.to_vec() } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_parts_took() {
        let times = Times {
            load: Duration::from_millis(120),
            reduce: Duration::from_millis(1_050),
            ..Times::default()
        };
        assert_eq!(times.line(), "load 0.12 s, forward 0.00 s, count 0.00 s, reduce 1.05 s");
        let times = Times { best: Duration::from_secs(2), ..times };
        assert!(times.line().ends_with(", best 2.00 s"));
    }
}
