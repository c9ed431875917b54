//! `equalize`: ranges brought together before calibration, between the channels of weights or between activations and weights.

use std::collections::HashMap;

use qpipe::stages::contract::Metrics;
use qpipe::stages::equalize::{Equalization, Equalize, Relu6};
use serde_json::json;

use super::{
    Context,
    model::{check_images, model, write_json, write_model},
};
use crate::data::Dataset;
use crate::graph::Model;
use crate::passes::Folded;
use crate::quant::ladder::{
    Absorbed, Activation6, Moments, Smoothing, equalize, measured_moments, moments_of_norms, smooth,
};
use crate::quant::prepare::prepare_and_tell;
use crate::{Error, Result};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Equalize = context.config()?;
    let mut model = model(context, &config.model)?;
    let folded = prepare_and_tell(&mut model).map_err(|error| error.key("model"))?;
    let metrics = match config.method {
        Equalization::CrossLayer => cross_layer(context, &config, &mut model, &folded)?,
        Equalization::Smoothquant => smoothquant(context, &config, &mut model)?,
    };
    write_model(&model, context.output("model")?)?;
    Ok(metrics)
}

fn cross_layer(
    context: &Context,
    config: &Equalize,
    model: &mut Model,
    folded: &[Folded],
) -> Result<Metrics> {
    let bounded = match config.relu6 {
        Relu6::Keep => Activation6::Keep,
        Relu6::Relu => Activation6::Relu,
    };
    let moments =
        config.absorb_bias.then(|| moments(context, config, model, folded)).transpose()?;
    let found = equalize(model, bounded, moments.as_ref())?;
    if !found.in_the_way.is_empty() {
        context.events.warn(format!(
            "{} activation(s) with a bound stand between layers that so are not equalized, such as {}: relu6 = \"relu\" replaces those from 0 to a constant; evaluate the equalized float model then: it may compute something else",
            found.in_the_way.len(),
            found.in_the_way[0]
        ));
    }
    if found.pairs.is_empty() {
        return Err(Error::user("no two layers of the model can be equalized")
            .key("model")
            .help("two Conv, Gemm or MatMul with only Relu, LeakyRelu, PRelu, poolings and Flatten between them can; relu6 = \"relu\" adds those around a ReLU6"));
    }
    for pair in &found.pairs {
        let (least, greatest) = pair.factors;
        context.events.log(format!(
            "{} → {}: channels divided by {least:.3} to {greatest:.3}",
            pair.first, pair.second
        ));
    }
    let mut metrics = Metrics::from([
        ("pairs".to_owned(), json!(found.pairs.len())),
        ("replaced".to_owned(), json!(found.replaced.len())),
    ]);
    if config.absorb_bias {
        found.absorbed.iter().for_each(|absorbed| context.events.log(line(absorbed)));
        let channels: usize = found.absorbed.iter().map(|absorbed| absorbed.channels).sum();
        metrics.insert("absorbed_channels".to_owned(), json!(channels));
    }
    Ok(metrics)
}

/// How values are distributed before activations: as measured on `data`, or else as the normalizations say.
fn moments(
    context: &Context,
    config: &Equalize,
    model: &Model,
    folded: &[Folded],
) -> Result<HashMap<String, Vec<Moments>>> {
    if config.data.is_none() {
        return moments_of_norms(folded);
    }
    let dataset = dataset(context, model, config.batch_size() as usize)?;
    let samples = context.samples(config.samples(), &dataset);
    let how = (samples, config.batch_size() as usize, context.task.seed, context.task.threads);
    measured_moments(model, &dataset, how, &|done, total| {
        context.events.progress(done, total, "images", "");
    })
}

/// What became of a bias, for the log.
fn line(absorbed: &Absorbed) -> String {
    let Absorbed { first, second, channels, most, left } = absorbed;
    match left {
        Some(why) => format!("{first} → {second}: bias left as it was: {why}"),
        None => format!("{first} → {second}: up to {most:.3} absorbed in {channels} channel(s)"),
    }
}

fn dataset(context: &Context, model: &Model, batch: usize) -> Result<Dataset> {
    let dataset = context.dataset("data")?.read_once();
    check_images(model, &dataset, batch)?;
    Ok(dataset)
}

fn smoothquant(context: &Context, config: &Equalize, model: &mut Model) -> Result<Metrics> {
    let dataset = dataset(context, model, config.batch_size() as usize)?;
    let options = Smoothing {
        alpha: config.alpha(),
        samples: context.samples(config.samples(), &dataset),
        batch_size: config.batch_size() as usize,
        seed: context.task.seed,
        threads: context.task.threads,
    };
    let found = smooth(model, &dataset, &options, &|done, total| {
        context.events.progress(done, total, "images", "");
    })?;
    for left in &found.left {
        context.events.log(format!("{} ({}) is left: {}", left.layer, left.op, left.why));
    }
    if found.groups.is_empty() {
        return Err(Error::user("no layer of the model can be smoothed")
            .key("model")
            .help("Conv, Gemm and MatMul can whose input a normalization or a layer makes that nothing else reads; the stage's log says of each what is in the way"));
    }
    for group in &found.groups {
        let ([least, greatest], [before, after]) = (group.factors, group.activation_max);
        context.events.log(format!(
            "{} ({}) → {}: channels divided by {least:.3} to {greatest:.3}; largest activation {before:.3}, now {after:.3}",
            group.source,
            group.op,
            group.layers.join(", "),
        ));
    }
    write_json(&found, context.output("groups")?)?;
    let smoothed: usize = found.groups.iter().map(|group| group.layers.len()).sum();
    Ok(Metrics::from([
        ("groups".to_owned(), json!(found.groups.len())),
        ("smoothed".to_owned(), json!(smoothed)),
        ("left".to_owned(), json!(found.left.len())),
    ]))
}
