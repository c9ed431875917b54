//! `calibrate`: ranges of all tensors that may be quantized.

use qpipe::stages::calibrate::Calibrate;
use qpipe::stages::contract::Metrics;
use serde_json::json;

use super::{
    Context,
    model::{check_images, model},
};
use crate::quant::calibrate::{Calibrated, Options, calibrate, check_calibration};
use crate::quant::prepare::prepare;
use crate::quant::ranges::{Range, Ranges};
use crate::{Error, Result, torch};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Calibrate = context.config()?;
    let mut model = model(context, &config.model)?;
    prepare(&mut model)?;
    check_calibration(&model)?;
    let dataset = context.dataset("data")?.read_once();
    check_images(&model, &dataset, config.batch_size as usize)?;
    let samples = context.samples(config.samples, &dataset);
    let mut methods = config.methods.clone();
    methods.sort_unstable();
    methods.dedup();
    let options = Options {
        samples,
        batch_size: config.batch_size as usize,
        methods,
        best_samples: usize::try_from(config.best_samples).unwrap_or(usize::MAX),
        bins: config.bins,
        percentile: config.percentile,
        histogram: config.histogram,
        seed: context.task.seed,
        threads: context.task.threads,
        on_device: torch::device() != tch::Device::Cpu,
    };
    let found = calibrate(&model, &dataset, &options, &|done, total| {
        context.events.progress(done, total, "images", "");
    })?;
    context.events.log(found.times.line());
    warn(context, &found);
    let ranges = found.ranges;
    let disagreements = disagreements(&ranges);
    for line in table(&disagreements) {
        context.events.log(line);
    }
    let path = context.output("ranges")?;
    std::fs::write(path, ranges.to_bytes()).map_err(|error| Error::io(path, &error))?;
    let samples = ranges.calibration.as_ref().map_or(0, |calibration| calibration.samples);
    let mut metrics = Metrics::from([
        ("samples".to_owned(), json!(samples)),
        ("tensors".to_owned(), json!(ranges.tensors.len())),
    ]);
    if let Some(worst) = disagreements.first() {
        // Three digits say all; a float32 in full says nothing more.
        let factor = (f64::from(worst.disagreement()) * 100.0).round() / 100.0;
        metrics.insert("largest_disagreement".to_owned(), json!(factor));
        metrics.insert("largest_disagreement_at".to_owned(), json!(worst.tensor));
    }
    Ok(metrics)
}

/// Names what no calibration can learn from.
fn warn(context: &Context, found: &Calibrated) {
    if found.images_alike {
        context.events.warn_of(
            "data",
            "all calibration images are the same: ranges of one image say little of others",
        );
    }
    let tensors = &found.ranges.tensors;
    let names = |wanted: &dyn Fn(&Range) -> bool| {
        let wanted = tensors.iter().filter(|range| wanted(range));
        wanted.map(|range| range.tensor.as_str()).collect::<Vec<_>>().join(", ")
    };
    let zero = names(&|range| range.abs_max() == 0.0);
    if !zero.is_empty() {
        context.events.warn_of("data", format!("these tensors were 0 for every image: {zero}"));
    }
    let constant = names(&|range| range.is_constant() && range.abs_max() > 0.0);
    if !constant.is_empty() {
        context.events.warn_of(
            "data",
            format!(
                "these tensors had one value, the same everywhere and for every image: {constant}"
            ),
        );
    }
}

/// Tensors of the log's table.
const SHOWN: usize = 5;

/// Tensors on which methods disagree by a tenth or more, most first.
fn disagreements(ranges: &Ranges) -> Vec<&Range> {
    let mut found: Vec<&Range> =
        ranges.tensors.iter().filter(|range| range.disagreement() >= 1.1).collect();
    found.sort_by(|a, b| b.disagreement().total_cmp(&a.disagreement()));
    found
}

/// Lines of the log: those tensors on which methods disagree most, with each method's `amax` and, where it is known, its error.
fn table(disagreements: &[&Range]) -> Vec<String> {
    let mut lines = Vec::new();
    if !disagreements.is_empty() {
        lines.push(format!(
            "methods disagree by a tenth or more on {} tensor(s), most on:",
            disagreements.len()
        ));
    }
    for range in disagreements.iter().take(SHOWN) {
        let methods = range.amax.iter().map(|(method, amax)| {
            let error = range.error.as_ref().and_then(|errors| errors.get(method));
            let error = error.map_or(String::new(), |error| format!(" (error {error:.2e})"));
            format!("{} {amax:.4}{error}", method.name())
        });
        let methods: Vec<String> = methods.collect();
        let factor = range.disagreement();
        lines.push(format!("  {factor:.2} times  {}: {}", range.tensor, methods.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qpipe::stages::calibrate::Method;

    use super::*;
    use crate::quant::ranges::VERSION;

    fn range(tensor: &str, max: f32, mse: f32) -> Range {
        Range {
            tensor: tensor.to_owned(),
            amax: BTreeMap::from([(Method::Max, max), (Method::Mse, mse)]),
            error: Some(BTreeMap::from([(Method::Mse, 0.001_234)])),
            ..Range::default()
        }
    }

    #[test]
    fn the_log_names_tensors_on_which_methods_disagree_most() {
        let tensors = vec![range("a", 1.0, 1.0), range("b", 3.0, 2.0), range("c", 4.0, 1.0)];
        let ranges = Ranges { version: VERSION, calibration: None, tensors };
        let found = disagreements(&ranges);
        assert_eq!(
            table(&found),
            [
                "methods disagree by a tenth or more on 2 tensor(s), most on:",
                "  4.00 times  c: max 4.0000, mse 1.0000 (error 1.23e-3)",
                "  1.50 times  b: max 3.0000, mse 2.0000 (error 1.23e-3)",
            ]
        );
        assert!(table(&[]).is_empty());
    }
}
