//! SmoothQuant (Xiao et al. 2023, <https://arxiv.org/abs/2211.10438>).
//!
//! Activations of transformers have few channels of large values, the same ones for every image; one scale for the whole tensor then leaves few steps
//! to all others. Dividing channel `j` by `s_j = max|X_j|^α / max|W_j|^(1−α)` and multiplying the weights that read it moves the outliers into
//! weights, which lose less by them. What divides is the constant of what makes the channel: a normalization's scale and shift, or a layer's
//! weight and bias with nothing but linear and ReLU-like operators behind it, an attention block's product with its values included.
//!
//! All readers must take the factors in, or what makes the channels stays as it is: the model computes the same.

mod channels;
mod follow;
mod range;
mod source;

use std::collections::HashSet;

use serde::Serialize;
use tch::Tensor;

use self::channels::Values;
use self::follow::{Followed, follow};
use self::range::ranges;
use self::source::{Source, change, put, sources};
use super::weighted::Layout;
use crate::data::{Dataset, Loader, Order, permutation};
use crate::graph::{Model, TensorData};
use crate::{Error, Result};

/// How to smooth, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Smoothing {
    /// Share of the outliers that goes to the weights, 0…1.
    pub alpha: f64,
    /// Images used, fewer where the data set has fewer.
    pub samples: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Chooses the images.
    pub seed: u64,
    /// Threads that load images.
    pub threads: usize,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Smoothed {
    /// In the order of the graph.
    pub groups: Vec<Group>,
    /// Layers with a weight whose input stays as it was.
    pub left: Vec<Left>,
}

/// Layers that read the channels of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What makes the channels, and is divided.
    pub source: String,
    /// Its operator.
    pub op: String,
    /// Layers whose weights are multiplied.
    pub layers: Vec<String>,
    /// Channels.
    pub channels: usize,
    /// Least and greatest factor by which a channel was divided.
    pub factors: [f64; 2],
    /// Largest magnitude of the activations, before and after.
    pub activation_max: [f64; 2],
    /// Median of the channels' largest magnitudes, before and after: far below the largest, where there are outliers.
    pub activation_median: [f64; 2],
    /// Largest magnitude of the layers' weights, before and after.
    pub weight_max: [f64; 2],
}

/// A layer that was not smoothed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The layer.
    pub layer: String,
    /// Its operator.
    pub op: String,
    /// Why.
    pub why: String,
}

/// Images that show the shapes of values.
const SHOWN: i64 = 2;

/// Smooths all layers of a prepared float model that can be. The same seed gives the same model. `progress` is told of images done and of all.
///
/// # Errors
/// A model of several inputs; weights that are not finite; what data and model refuse.
pub fn smooth(
    model: &mut Model,
    dataset: &Dataset,
    options: &Smoothing,
    progress: &dyn Fn(u64, u64),
) -> Result<Smoothed> {
    if model.graph.inputs.len() != 1 {
        let count = model.graph.inputs.len();
        return Err(Error::user(format!("the model has {count} inputs, expected one")).key("model"));
    }
    let mut chosen = permutation(dataset.len(), options.seed, 0);
    chosen.truncate(options.samples);
    let first: Vec<usize> = chosen.iter().copied().take(SHOWN as usize).collect();
    let mut images = Loader::new(dataset, first.len().max(1), Order::Subset(first), false, 1);
    let images: Tensor =
        images.next().ok_or_else(|| Error::user("the data set is empty").key("data"))??.images;
    let values = Values::of(model, &images)?;
    let (groups, left) = groups(model, &values)?;
    drop(values);
    let mut found = Smoothed { groups: Vec::new(), left };
    let ranges = ranges(model, &groups, dataset, (&chosen, options), progress)?;
    for ((source, followed), magnitudes) in groups.iter().zip(&ranges) {
        found.groups.push(apply(model, source, followed, magnitudes, options.alpha)?);
    }
    Ok(found)
}

/// A source, and all that reads it.
type Found = (Source, Followed);

/// Sources with their readers, in the order of the graph, and layers that have none.
fn groups(model: &Model, values: &Values) -> Result<(Vec<Found>, Vec<Left>)> {
    let graph = &model.graph;
    let mut groups: Vec<Found> = Vec::new();
    let mut taken: HashSet<usize> = HashSet::new();
    let mut left = Vec::new();
    // From behind: of two sources of a value the nearer one changes less.
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if taken.contains(&index) || Layout::of(graph, node)?.is_none() {
            continue;
        }
        let (candidates, end) = sources(graph, &node.inputs[0])?;
        let mut why = None;
        for source in candidates {
            match follow(graph, values, &source)? {
                Ok(found) if found.readers.iter().any(|reader| taken.contains(&reader.node)) => {}
                Ok(found) => {
                    taken.extend(found.readers.iter().map(|reader| reader.node));
                    groups.push((source, found));
                    break;
                }
                Err(reason) => {
                    let place = graph.nodes[source.node].place();
                    why.get_or_insert(format!("{place} makes it, which stays: {reason}"));
                }
            }
        }
        if !taken.contains(&index) {
            let (layer, op) = (node.label().to_owned(), node.op_type.clone());
            left.push(Left { layer, op, why: why.unwrap_or(end) });
        }
    }
    groups.sort_by_key(|(source, _)| source.node);
    left.reverse();
    Ok((groups, left))
}

/// Moves factors from what the readers of a group are given, of those magnitudes a channel, to their weights.
fn apply(
    model: &mut Model,
    source: &Source,
    followed: &Followed,
    magnitudes: &[f64],
    alpha: f64,
) -> Result<Group> {
    let graph = &mut model.graph;
    let mut weights = vec![0.0_f64; source.count];
    let mut before = 0.0_f64;
    for reader in &followed.readers {
        let node = &graph.nodes[reader.node];
        let layout =
            Layout::of(graph, node)?.ok_or_else(|| Error::bug("a layer without weight"))?;
        for (element, value) in
            graph.initializers[&node.inputs[1]].to_f32()?.into_iter().enumerate()
        {
            let most = &mut weights[reader.channels[layout.channels(element).1]];
            *most = most.max(f64::from(value.abs()));
            before = before.max(f64::from(value.abs()));
        }
    }
    let factor = |(&activation, &weight): (&f64, &f64)| {
        let factor = activation.powf(alpha) / weight.powf(1.0 - alpha);
        // A channel that is 0 for all images, or that no weight reads, says nothing.
        let known = activation > 0.0 && weight > 0.0 && factor.is_finite() && factor > 0.0;
        if known { factor } else { 1.0 }
    };
    let factors: Vec<f64> = magnitudes.iter().zip(&weights).map(factor).collect();
    source.divide(graph, &factors)?;
    for added in &followed.added {
        let (extents, channels) = &added.channels;
        let name = &graph.nodes[added.at.0].inputs[added.at.1];
        let divisors: Vec<f32> = channels.iter().map(|&channel| factors[channel] as f32).collect();
        let divisors = Tensor::f_from_slice(&divisors)?.f_reshape(extents)?;
        let data: TensorData =
            crate::torch::tensor_data(&channels::constant(graph, name)?.f_div(&divisors)?)?;
        put(graph, added.at, data);
    }
    let mut after = 0.0_f64;
    for reader in &followed.readers {
        let layout = Layout::of(graph, &graph.nodes[reader.node])?
            .ok_or_else(|| Error::bug("a layer without weight"))?;
        change(graph, (reader.node, 1), |element, value| {
            let value = value * factors[reader.channels[layout.channels(element).1]];
            after = after.max(value.abs());
            value
        })?;
    }
    let divided: Vec<f64> =
        magnitudes.iter().zip(&factors).map(|(most, factor)| most / factor).collect();
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let node = &graph.nodes[source.node];
    let layers = followed.readers.iter().map(|reader| graph.nodes[reader.node].label().to_owned());
    Ok(Group {
        source: node.label().to_owned(),
        op: node.op_type.clone(),
        layers: layers.collect(),
        channels: source.count,
        factors: [factors.iter().copied().fold(f64::INFINITY, f64::min), largest(&factors)],
        activation_max: [largest(magnitudes), largest(&divided)],
        activation_median: [median(magnitudes), median(&divided)],
        weight_max: [before, after],
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
