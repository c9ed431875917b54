//! `calibrate`: ranges of all tensors that may be quantized.

use qpipe::stages::calibrate::Calibrate;
use qpipe::stages::contract::Metrics;
use serde_json::json;

use super::{Context, model::model};
use crate::data::Dataset;
use crate::interp;
use crate::quant::calibrate::{Options, calibrate};
use crate::quant::prepare::prepare;
use crate::{Error, Result};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Calibrate = context.config()?;
    let mut model = model(context, &config.model)?;
    prepare(&mut model)?;
    let (spec, paths) = context.data("data")?;
    let dataset = Dataset::open(spec, paths)?;
    dataset.notes().into_iter().for_each(|note| context.events.log(note));
    if let Some((height, width)) = dataset.size() {
        let image = [1, dataset.channels() as i64, height as i64, width as i64];
        interp::check_sizes(&model, &[&image])?;
    }
    let samples = usize::try_from(config.samples).unwrap_or(usize::MAX);
    if samples > dataset.len() {
        context.events.warn(format!(
            "{samples} images were asked for, the data set has {}: all of them are used",
            dataset.len()
        ));
    }
    let mut methods = config.methods.clone();
    methods.sort_unstable();
    methods.dedup();
    let options = Options {
        samples,
        batch_size: config.batch_size as usize,
        methods,
        bins: config.bins,
        percentile: config.percentile,
        histogram: config.histogram,
        seed: context.task.seed,
        threads: context.task.threads,
    };
    let ranges = calibrate(&model, &dataset, &options, &|done, total| {
        context.events.progress(done, total, "images", "");
    })?;
    let zero: Vec<&str> = ranges
        .tensors
        .iter()
        .filter(|range| range.abs_max == 0.0)
        .map(|range| range.tensor.as_str())
        .collect();
    if !zero.is_empty() {
        context.events.warn(format!("these tensors were 0 for every image: {}", zero.join(", ")));
    }
    let path = context.output("ranges")?;
    std::fs::write(path, ranges.to_bytes()).map_err(|error| Error::io(path, &error))?;
    Ok(Metrics::from([
        ("samples".to_owned(), json!(ranges.samples)),
        ("tensors".to_owned(), json!(ranges.tensors.len())),
    ]))
}
