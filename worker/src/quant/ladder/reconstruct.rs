//! Layer by layer, weights and biases of a quantized model are changed so that it computes what the float model does.
//!
//! The float model is the quantized one without its pairs, whose weights are still float. Both run side by side ([`Walk`]); each layer sees the
//! values of the quantized model before it, already changed, so that later layers make up for what earlier ones lost. Roundings may be learned for
//! all layers of a residual block at once.

use serde::Serialize;
use tch::Tensor;

use super::adaround::{Adaround, Examples, Unit, learn};
use super::bias::correct;
use super::block::Block;
use super::layer::{Function, Layer, layers, without_pairs};
use super::region::{Region, gather, regions};
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
    /// The residual block it was learned with, by its last node: errors are those of what the block makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
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
    mut model: Model,
    dataset: &Dataset,
    options: &Options,
    progress: &dyn Fn(u64, u64, &str),
) -> Result<(Model, Vec<Reconstructed>)> {
    let units = units(&mut model, options)?;
    if units.is_empty() {
        return Err(Error::user("the model has no layer whose float weight has a Q/DQ pair of int8 or int4 with zero point 0")
            .help("give it the output of `insert-qdq`: a float model has no pairs, and an exported one no float weights")
            .key("model"));
    }
    let mut chosen = permutation(dataset.len(), options.seed, 0);
    chosen.truncate(options.samples);
    let loader =
        Loader::new(dataset, options.batch_size, Order::Subset(chosen), false, options.threads);
    let images: Vec<Tensor> = loader.map(|batch| Ok(batch?.images)).collect::<Result<_>>()?;
    let float = Walk::new(without_pairs(&model), &images)?;
    let quantized = Walk::new(model, &images)?;
    let mut walks = Walks { float, quantized, options };
    let steps = options.adaround.map_or(1, |adaround| adaround.iterations.max(1));
    let total = steps * units.len() as u64;
    let mut report = Vec::new();
    for (index, (region, layers)) in units.iter().enumerate() {
        let last = region.as_ref().map_or(layers[0].node, |region| region.exit);
        let node = &walks.quantized.graph().nodes[last];
        let (label, place) = (node.label().to_owned(), node.place());
        let done = steps * index as u64;
        progress(done, total, &label);
        let told = |step| progress(done + step, total, &label);
        let made = walks.unit(region.as_ref(), layers, &told);
        report.extend(made.map_err(|error| error.at(place))?);
    }
    progress(total, total, "");
    Ok((walks.quantized.into_model(), report))
}

/// What is learned at once: a residual block and its layers, or one layer; in the order of the graph.
type Step = (Option<Region>, Vec<Layer>);

/// Nodes of a block may have to be moved next to each other.
fn units(model: &mut Model, options: &Options) -> Result<Vec<Step>> {
    let mut all = layers(&model.graph)?;
    let blocks = options.adaround.is_some_and(|adaround| adaround.unit == Unit::Block);
    if !blocks {
        return Ok(all.into_iter().map(|layer| (None, vec![layer])).collect());
    }
    let mut found = regions(&model.graph, &all);
    if gather(&mut model.graph, &found) {
        all = layers(&model.graph)?;
        found = regions(&model.graph, &all);
    }
    let mut units: Vec<Step> = Vec::new();
    for layer in all {
        let region = found.iter().find(|region| region.nodes.contains(&layer.node));
        match units.last_mut() {
            Some((Some(last), layers)) if Some(&*last) == region => layers.push(layer),
            _ => units.push((region.cloned(), vec![layer])),
        }
    }
    Ok(units)
}

/// The float and the quantized model, side by side.
struct Walks<'a> {
    float: Walk,
    quantized: Walk,
    options: &'a Options,
}

impl Walks<'_> {
    /// Reconstructs a block or a layer, up to which both models have run or will.
    fn unit(
        &mut self,
        region: Option<&Region>,
        layers: &[Layer],
        progress: &dyn Fn(u64),
    ) -> Result<Vec<Reconstructed>> {
        let graph = self.quantized.graph();
        let block = region.map(|region| graph.nodes[region.exit].label().to_owned());
        let mut found: Vec<Reconstructed> = layers
            .iter()
            .map(|layer| Reconstructed {
                node: graph.nodes[layer.node].label().to_owned(),
                op: graph.nodes[layer.node].op_type.clone(),
                block: block.clone(),
                nearest_error: None,
                learned_error: None,
                mean_shift: None,
                left: None,
            })
            .collect();
        if let Some(adaround) = &self.options.adaround {
            let alone = |layer: &Layer| {
                let readers = graph.nodes.iter().flat_map(|node| &node.inputs);
                readers.filter(|name| **name == layer.weight).count() < 2
            };
            let alone: Vec<bool> = layers.iter().map(alone).collect();
            for (found, _) in found.iter_mut().zip(&alone).filter(|(_, alone)| !**alone) {
                found.left = Some("rounding: several layers share the weight");
            }
            let own = |place: &usize| alone[*place];
            let places: Vec<usize> = (0..layers.len()).filter(own).collect();
            let learned: Vec<&Layer> = places.iter().map(|&place| &layers[place]).collect();
            if let Some(first) = learned.first() {
                let seed = self.options.seed.wrapping_add(first.node as u64);
                let error = self.learn(region, &learned, adaround, seed, progress)?;
                for place in places {
                    found[place].nearest_error = Some(error.0);
                    found[place].learned_error = Some(error.1);
                }
            }
        }
        if self.options.bias_correction {
            for (layer, found) in layers.iter().zip(&mut found) {
                self.float.advance(layer.node + 1)?;
                self.quantized.advance(layer.node + 1)?;
                let shift = correct(&self.float, &mut self.quantized, layer)?;
                found.mean_shift = Some(shift.largest);
                if !shift.corrected {
                    found.left = Some("bias: the layer has none that can be shifted");
                }
            }
        }
        Ok(found)
    }

    /// Learns roundings and takes them; errors before and after.
    fn learn(
        &mut self,
        region: Option<&Region>,
        layers: &[&Layer],
        adaround: &Adaround,
        seed: u64,
        progress: &dyn Fn(u64),
    ) -> Result<(f64, f64)> {
        let mut step = 0;
        let mut told = || {
            step += 1;
            progress(step);
        };
        let drops = adaround.drop > 0.0;
        let learned = if let Some(region) = region {
            self.float.advance(region.nodes[0])?;
            self.quantized.advance(region.nodes[0])?;
            let mut ahead = self.float.ahead();
            ahead.advance(region.exit + 1)?;
            let output = &ahead.graph().nodes[region.exit].outputs[0];
            let examples = Examples {
                input: Examples::whole(&self.quantized.values(&region.entry)?)?,
                float: drops
                    .then(|| Examples::whole(&self.float.values(&region.entry)?))
                    .transpose()?,
                output: Examples::whole(&ahead.values(output)?)?,
            };
            drop(ahead);
            let mut block = Block::of(self.quantized.model(), region, layers)?;
            let graph = self.quantized.graph();
            learn(graph, layers, &mut block, &examples, adaround, seed, &mut told)?
        } else {
            let layer = layers[0];
            let node = &self.quantized.graph().nodes[layer.node];
            let (input, output) = (node.inputs[0].clone(), node.outputs[0].clone());
            self.float.advance(layer.node)?;
            let float = drops.then(|| Examples::whole(&self.float.values(&input)?)).transpose()?;
            self.float.advance(layer.node + 1)?;
            self.quantized.advance(layer.node)?;
            let mut function = Function::of(self.quantized.model(), layer)?;
            let output = {
                let _no_grad = tch::no_grad_guard();
                function.activated(Examples::whole(&self.float.values(&output)?)?)?
            };
            let input = Examples::whole(&self.quantized.values(&input)?)?;
            let examples = Examples { input, float, output };
            let graph = self.quantized.graph();
            learn(graph, layers, &mut function, &examples, adaround, seed, &mut told)?
        };
        for (layer, weight) in layers.iter().zip(learned.weights) {
            self.quantized.graph_mut().initializers.insert(layer.weight.clone(), weight);
        }
        Ok(learned.error)
    }
}
