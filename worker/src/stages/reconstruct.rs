//! `reconstruct`: learned rounding and corrected biases of a quantized model.

use qpipe::stages::contract::Metrics;
use qpipe::stages::reconstruct::{Reconstruct, Unit};
use serde_json::json;

use super::{
    Context,
    model::{check_images, model, write_json, write_model},
};
use crate::Result;
use crate::quant::ladder::{self, Reconstructed};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Reconstruct = context.config()?;
    let model = model(context, &config.model)?;
    let dataset = context.dataset("data")?.read_once();
    check_images(&model, &dataset, config.batch_size as usize)?;
    let samples = context.samples(config.samples, &dataset);
    let adaround = config.adaround.as_ref().map(|adaround| ladder::Adaround {
        unit: match adaround.unit {
            Unit::Layer => ladder::Unit::Layer,
            Unit::Block => ladder::Unit::Block,
        },
        drop: adaround.drop(),
        iterations: adaround.iterations,
        lr: adaround.lr,
        batch_size: adaround.batch_size as usize,
        regularization: adaround.regularization,
        beta: adaround.beta,
        warm_up: adaround.warm_up,
    });
    let options = ladder::Options {
        samples,
        batch_size: config.batch_size as usize,
        bias_correction: config.bias_correction,
        adaround,
        seed: context.task.seed,
        threads: context.task.threads,
    };
    let (model, layers) = ladder::reconstruct(model, &dataset, &options, &|done, total, layer| {
        context.events.progress(done, total, "steps", layer);
    })?;
    layers.iter().map(line).for_each(|line| context.events.log(line));
    let left: Vec<&Reconstructed> = layers.iter().filter(|layer| layer.left.is_some()).collect();
    if let Some(first) = left.first() {
        context.events.warn(format!(
            "{} of {} layers were left as they were in part, such as {} ({}): {}",
            left.len(),
            layers.len(),
            first.node,
            first.op,
            first.left.unwrap_or_default()
        ));
    }
    write_model(&model, context.output("model")?)?;
    write_json(&layers, context.output("layers")?)?;
    let mut metrics = Metrics::from([("layers".to_owned(), json!(layers.len()))]);
    let shifts = layers.iter().filter_map(|layer| layer.mean_shift);
    if let Some(largest) = shifts.reduce(f64::max) {
        metrics.insert("largest_mean_shift".to_owned(), json!(three_digits(largest)));
    }
    let kept = layers.iter().filter_map(|layer| Some(layer.learned_error? / layer.nearest_error?));
    let kept: Vec<f64> = kept.filter(|share| share.is_finite() && *share > 0.0).collect();
    if !kept.is_empty() {
        let mean = kept.iter().map(|share| share.ln()).sum::<f64>() / kept.len() as f64;
        metrics.insert("error_left".to_owned(), json!(three_digits(mean.exp())));
    }
    Ok(metrics)
}

/// What became of a layer, for the log.
fn line(layer: &Reconstructed) -> String {
    let mut text = format!("{} ({})", layer.node, layer.op);
    if let Some(block) = &layer.block {
        text.push_str(&format!(", block {block}"));
    }
    if let (Some(nearest), Some(learned)) = (layer.nearest_error, layer.learned_error) {
        text.push_str(&format!(": squared error {nearest:.2e}, learned {learned:.2e}"));
    }
    if let Some(shift) = layer.mean_shift {
        text.push_str(&format!("; means shifted by up to {shift:.3} of the deviation"));
    }
    if let Some(left) = layer.left {
        text.push_str(&format!("; left as it was: {left}"));
    }
    text
}

/// A figure for a table.
fn three_digits(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
