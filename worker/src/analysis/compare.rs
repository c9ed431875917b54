//! Variants of a model compared with it, several in one pass over the data.

use std::collections::BTreeSet;

use tch::Tensor;

use super::agreement::Seen;
use super::report::Outcome;
use super::suffix::suffix;
use super::variant::{Base, Tally, Variant, classes};
use crate::Result;
use crate::data::{Dataset, Loader, Order, permutation};
use crate::graph::Model;

/// On what variants are compared.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Labelled images.
    pub dataset: &'a Dataset,
    /// How many are used, fewer where the data set has fewer.
    pub samples: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Chooses them.
    pub seed: u64,
    /// Threads that load them.
    pub threads: usize,
}

impl Images<'_> {
    /// Places of those that are used.
    fn chosen(&self) -> Vec<usize> {
        let mut chosen = permutation(self.dataset.len(), self.seed, 0);
        chosen.truncate(self.samples);
        chosen
    }
}

/// What comes out of a float model, of the same with all layers quantized, and of variants in between.
#[derive(Debug)]
pub struct Compared {
    /// The float model, against itself.
    pub float: Outcome,
    /// All layers quantized.
    pub quantized: Outcome,
    /// The variants, in their order.
    pub variants: Vec<Outcome>,
}

/// Gives the outputs for images `[N, C, H, W]`, in the order of the model's.
pub type Run<'a> = Box<dyn FnMut(&Tensor) -> Result<Vec<Tensor>> + 'a>;

/// What comes out of `runs`, such as engines, against the float model: on the images of [`compare`].
///
/// # Errors
/// What data, model and runs refuse.
pub fn compare_runs(
    float: &Model,
    runs: &mut [Run],
    images: &Images,
    progress: &dyn Fn(u64, u64),
) -> Result<Vec<Outcome>> {
    let _no_grad = tch::no_grad_guard();
    let (_, classes) = classes(float, images.dataset)?;
    let mut tallies = vec![Tally::new(classes); runs.len()];
    let mut float = Seen::new(float, &[])?;
    let chosen = images.chosen();
    let (total, mut done) = (chosen.len() as u64, 0);
    let order = Order::Subset(chosen);
    for batch in Loader::new(images.dataset, images.batch_size, order, false, images.threads) {
        let batch = batch?;
        let (expected, _) = float.run(&batch.images)?;
        for (tally, run) in tallies.iter_mut().zip(&mut *runs) {
            tally.add(&expected, &run(&batch.images)?, &batch.labels)?;
        }
        done += batch.labels.size()[0] as u64;
        progress(done, total);
    }
    Ok(tallies.iter().map(Tally::outcome).collect())
}

/// Runs all on the same images. A variant is computed from the first node on where it differs, from the float or the quantized model,
/// whichever leaves less of it.
///
/// # Errors
/// What data and models refuse.
pub fn compare(
    float: &Model,
    quantized: &Model,
    variants: &[Model],
    images: &Images,
    progress: &dyn Fn(u64, u64),
) -> Result<Compared> {
    let _no_grad = tch::no_grad_guard();
    let (_, classes) = classes(float, images.dataset)?;
    let mut watched = [BTreeSet::new(), BTreeSet::new()];
    let variants = variants.iter().map(|variant| {
        let of = [suffix(float, variant)?, suffix(quantized, variant)?];
        let count = of.each_ref().map(|suffix| suffix.model.graph.nodes.len());
        let of_quantized = count[1] < count[0];
        let [of_float, of_full] = of;
        let suffix = if of_quantized { of_full } else { of_float };
        watched[usize::from(of_quantized)].extend(suffix.inputs.iter().cloned());
        Ok(Variant { suffix, of_quantized, outcome: Tally::new(classes) })
    });
    let mut variants = variants.collect::<Result<Vec<_>>>()?;
    let [of_float, of_quantized] = watched;
    let mut float = Base::new(float, of_float, classes)?;
    let mut quantized = Base::new(quantized, of_quantized, classes)?;
    let chosen = images.chosen();
    let (total, mut done) = (chosen.len() as u64, 0);
    let order = Order::Subset(chosen);
    for batch in Loader::new(images.dataset, images.batch_size, order, false, images.threads) {
        let batch = batch?;
        let (expected, of_float) = float.seen.run(&batch.images)?;
        let (found, of_quantized) = quantized.seen.run(&batch.images)?;
        float.outcome.add(&expected, &expected, &batch.labels)?;
        quantized.outcome.add(&expected, &found, &batch.labels)?;
        for variant in &mut variants {
            let values = if variant.of_quantized { &of_quantized } else { &of_float };
            variant.step(values, &expected, &batch.labels)?;
        }
        done += batch.labels.size()[0] as u64;
        progress(done, total);
    }
    Ok(Compared {
        float: float.outcome.outcome(),
        quantized: quantized.outcome.outcome(),
        variants: variants.iter().map(|variant| variant.outcome.outcome()).collect(),
    })
}
