//! Layers quantized one by one, and all but one.
//!
//! For each batch the float model and the fully quantized one run once, and keep the values that others need. A variant is then
//! computed from the first node on whose values differ ([`suffix`]), which halves the work on average.

use std::collections::BTreeSet;

use qpipe::stages::sensitivity::Measure;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use tch::Tensor;

use super::fidelity::Fidelity;
use super::report::{Layer, Report, Step, VERSION};
use super::suffix::suffix;
use super::variant::{Base, Classes, Tally, Variant, classes};
use crate::Result;
use crate::data::{Dataset, Loader, Order, permutation};
use crate::graph::Model;
use crate::quant::insert::insert;
use crate::quant::placement::{Request, Selection, nothing_left, plan_for};
use crate::quant::ranges::Ranges;

/// What to measure, and on what.
pub struct Options<'a> {
    /// How layers are quantized.
    pub request: Request<'a>,
    /// The TensorRT whose rules hold, with that target.
    pub version: TensorrtVersion,
    /// What is measured of each layer.
    pub measure: &'a [Measure],
    /// Images used, fewer where the data set has fewer.
    pub samples: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Chooses the images.
    pub seed: u64,
    /// Threads that load images.
    pub threads: usize,
}

/// Measures all layers of a prepared float model that the request quantizes. `progress` is told of images done and images in all.
///
/// # Errors
/// What data, ranges and model refuse; a request that quantizes nothing.
pub fn measure(
    model: &Model,
    ranges: &Ranges,
    dataset: &Dataset,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<Report> {
    let _no_grad = tch::no_grad_guard();
    let request = &options.request;
    let all = Selection::of(&model.graph, request.include, request.exclude)?;
    let quantize = |selection: &Selection| -> Result<Model> {
        let mut quantized = model.clone();
        insert(
            &mut quantized,
            &plan_for(&model.graph, ranges, request, selection, options.version)?,
        )?;
        Ok(quantized)
    };
    let plan = plan_for(&model.graph, ranges, request, &all, options.version)?;
    let indices: Vec<usize> =
        (0..plan.layers.len()).filter(|&index| plan.layers[index].quantized).collect();
    if indices.is_empty() {
        return Err(nothing_left(&plan, &model.graph, request, options.version));
    }
    let full = quantize(&all)?;
    let (logits, classes) = classes(model, dataset)?;
    let mut variants: Vec<(usize, Measure, Variant)> = Vec::new();
    for &index in &indices {
        for &measure in options.measure {
            let (base, selection) = match measure {
                Measure::Alone => (model, all.only(index)),
                Measure::Without => (&full, all.without(index)),
            };
            let suffix = suffix(base, &quantize(&selection)?)?;
            let of_quantized = measure == Measure::Without;
            variants.push((
                index,
                measure,
                Variant { suffix, of_quantized, outcome: Tally::new(classes) },
            ));
        }
    }
    let mut run = Run::new(model, &full, variants.iter().map(|(_, _, variant)| variant), classes)?;
    let mut chosen = permutation(dataset.len(), options.seed, 0);
    chosen.truncate(options.samples);
    let (total, mut done) = (chosen.len() as u64, 0);
    for batch in
        Loader::new(dataset, options.batch_size, Order::Subset(chosen), false, options.threads)
    {
        let batch = batch?;
        run.step(&batch.images, &batch.labels, variants.iter_mut().map(|(_, _, variant)| variant))?;
        done += batch.labels.size()[0] as u64;
        progress(done, total);
    }
    let mut report = Report {
        version: VERSION,
        target: request.target,
        method: request.method,
        samples: total as usize,
        logits,
        float: run.float.outcome.outcome(),
        quantized: run.quantized.outcome.outcome(),
        layers: Vec::new(),
        accumulation: run.accumulation(model),
    };
    for &index in &indices {
        let outcome = |wanted: Measure| {
            let of =
                |(at, measure, _): &&(usize, Measure, Variant)| *at == index && *measure == wanted;
            variants.iter().find(of).map(|(_, _, variant)| variant.outcome.outcome())
        };
        let layer = &plan.layers[index];
        report.layers.push(Layer {
            node: layer.node.clone(),
            op: layer.op.clone(),
            alone: outcome(Measure::Alone),
            without: outcome(Measure::Without),
        });
    }
    report.sort();
    Ok(report)
}

struct Run {
    float: Base,
    quantized: Base,
    /// Values that nodes of the float model make, and how far the quantized model's are from them.
    along: Vec<(String, Fidelity)>,
}

impl Run {
    fn new<'a>(
        model: &Model,
        full: &Model,
        variants: impl Iterator<Item = &'a Variant>,
        classes: Option<Classes>,
    ) -> Result<Self> {
        let made =
            model.graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
        let along: Vec<(String, Fidelity)> =
            made.map(|name| (name.clone(), Fidelity::default())).collect();
        let names: BTreeSet<String> = along.iter().map(|(name, _)| name.clone()).collect();
        let (mut float, mut quantized) = (names.clone(), names);
        for variant in variants {
            let watched = if variant.of_quantized { &mut quantized } else { &mut float };
            watched.extend(variant.suffix.inputs.iter().cloned());
        }
        Ok(Self {
            float: Base::new(model, float, classes)?,
            quantized: Base::new(full, quantized, classes)?,
            along,
        })
    }

    fn step<'a>(
        &mut self,
        images: &Tensor,
        labels: &Tensor,
        variants: impl Iterator<Item = &'a mut Variant>,
    ) -> Result<()> {
        let (expected, float) = self.float.seen.run(images)?;
        let (outputs, quantized) = self.quantized.seen.run(images)?;
        self.float.outcome.add(&expected, &expected, labels)?;
        self.quantized.outcome.add(&expected, &outputs, labels)?;
        for (name, fidelity) in &mut self.along {
            let (Some(expected), Some(found)) = (float.get(name), quantized.get(name)) else {
                continue;
            };
            if matches!(expected.kind(), tch::Kind::Float) {
                fidelity.add(expected, found)?;
            }
        }
        for variant in variants {
            let values = if variant.of_quantized { &quantized } else { &float };
            variant.step(values, &expected, labels)?;
        }
        Ok(())
    }

    fn accumulation(&self, model: &Model) -> Vec<Step> {
        let producers = model.graph.producers();
        let steps = self.along.iter().filter_map(|(tensor, fidelity)| {
            let node = &model.graph.nodes[*producers.get(tensor.as_str())?];
            Some(Step {
                tensor: tensor.clone(),
                node: node.label().to_owned(),
                op: node.op_type.clone(),
                fidelity: fidelity.figures(),
            })
        });
        steps.collect()
    }
}
