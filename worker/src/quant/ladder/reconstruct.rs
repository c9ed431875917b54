//! Layer by layer, weights and biases of a quantized model are changed so that it computes what the float model does.
//!
//! The float model is the quantized one without its pairs, whose weights are still float. Both run side by side ([`Walk`]); each layer sees the
//! values of the quantized model before it, already changed, so that later layers make up for what earlier ones lost.

use serde::Serialize;
use tch::Tensor;

use super::adaround::{Adaround, learn};
use super::bias::correct;
use super::layer::{Function, Layer, layers, without_pairs};
use super::walk::Walk;
use crate::data::{Dataset, Loader, Order, permutation};
use crate::graph::Model;
use crate::{Error, Result};

/// What to do, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Images used, fewer where the data set has fewer.
    pub samples: usize,
    /// Images a step of the model.
    pub batch_size: usize,
    /// Whether biases are corrected.
    pub bias_correction: bool,
    /// How rounding is learned, if it is.
    pub adaround: Option<Adaround>,
    /// Chooses the images, and their order in learning.
    pub seed: u64,
    /// Threads that load images.
    pub threads: usize,
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reconstructed {
    /// The layer.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Mean squared error of its output against the float model's, its weight rounded to the nearest integers; `null`: rounding was not learned.
    pub nearest_error: Option<f64>,
    /// The same with the learned rounding.
    pub learned_error: Option<f64>,
    /// Largest shift of a channel's mean that was taken from the bias, by the standard deviation of the layer's output; `null`: not measured.
    pub mean_shift: Option<f64>,
    /// Why something was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<&'static str>,
}

/// Changes weights and biases of a model with Q/DQ pairs. Without labels; the same seed gives the same model. `progress` is told of steps done
/// and steps in all, and of the layer.
///
/// # Errors
/// A model without pairs on float weights, or of several inputs; what data and model refuse.
pub fn reconstruct(
    model: Model,
    dataset: &Dataset,
    options: &Options,
    progress: &dyn Fn(u64, u64, &str),
) -> Result<(Model, Vec<Reconstructed>)> {
    let all = layers(&model.graph)?;
    if all.is_empty() {
        return Err(Error::user("the model has no layer whose float weight has a Q/DQ pair of int8 or int4 with zero point 0")
            .help("give it the output of `insert-qdq`: a float model has no pairs, and an exported one no float weights")
            .key("model"));
    }
    let mut chosen = permutation(dataset.len(), options.seed, 0);
    chosen.truncate(options.samples);
    let loader =
        Loader::new(dataset, options.batch_size, Order::Subset(chosen), false, options.threads);
    let images: Vec<Tensor> = loader.map(|batch| Ok(batch?.images)).collect::<Result<_>>()?;
    let mut float = Walk::new(without_pairs(&model), &images)?;
    let mut quantized = Walk::new(model, &images)?;
    let steps = options.adaround.map_or(1, |adaround| adaround.iterations.max(1));
    let total = steps * all.len() as u64;
    let mut report = Vec::new();
    for (index, layer) in all.iter().enumerate() {
        let label = quantized.graph().nodes[layer.node].label().to_owned();
        let done = steps * index as u64;
        progress(done, total, &label);
        let told = |step| progress(done + step, total, &label);
        let place = quantized.graph().nodes[layer.node].place();
        let made = one(&mut float, &mut quantized, layer, options, &told);
        report.push(made.map_err(|error| error.at(place))?);
    }
    progress(total, total, "");
    Ok((quantized.into_model(), report))
}

/// Reconstructs one layer, up to which both models have run or will.
fn one(
    float: &mut Walk,
    quantized: &mut Walk,
    layer: &Layer,
    options: &Options,
    progress: &dyn Fn(u64),
) -> Result<Reconstructed> {
    float.advance(layer.node + 1)?;
    quantized.advance(layer.node)?;
    let node = &quantized.graph().nodes[layer.node];
    let mut found = Reconstructed {
        node: node.label().to_owned(),
        op: node.op_type.clone(),
        nearest_error: None,
        learned_error: None,
        mean_shift: None,
        left: None,
    };
    let (input, output) = (node.inputs[0].clone(), node.outputs[0].clone());
    if let Some(adaround) = &options.adaround {
        let readers = quantized.graph().nodes.iter().flat_map(|node| &node.inputs);
        if readers.filter(|name| **name == layer.weight).count() > 1 {
            found.left = Some("rounding: several layers share the weight");
        } else {
            let mut function = Function::of(quantized.model(), layer)?;
            let pairs = (quantized.values(&input)?, float.values(&output)?);
            let mut step = 0;
            let seed = options.seed.wrapping_add(layer.node as u64);
            let learned = learn(
                quantized.graph(),
                layer,
                &mut function,
                (&pairs.0, &pairs.1),
                adaround,
                seed,
                &mut || {
                    step += 1;
                    progress(step);
                },
            )?;
            found.nearest_error = Some(learned.error.0);
            found.learned_error = Some(learned.error.1);
            quantized.graph_mut().initializers.insert(layer.weight.clone(), learned.weight);
        }
    }
    if options.bias_correction {
        quantized.advance(layer.node + 1)?;
        let shift = correct(float, quantized, layer)?;
        found.mean_shift = Some(shift.largest);
        if !shift.corrected {
            found.left = Some("bias: the layer has none that can be shifted");
        }
    }
    Ok(found)
}
