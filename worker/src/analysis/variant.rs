//! Variants of a model that differ from it in how layers are quantized, and what comes out of them.

use std::collections::{BTreeSet, HashMap};

use tch::Tensor;

use super::agreement::Seen;
use super::fidelity::Fidelity;
use super::report::Outcome;
use super::suffix::Suffix;
use crate::data::{Dataset, Loader, Order};
use crate::graph::Model;
use crate::interp::{self, Mode, Program};
use crate::train::Score;
use crate::{Error, Result};

/// A variant of the model.
pub(super) struct Variant {
    /// What of it differs.
    pub suffix: Suffix,
    /// Whether what it shares is the quantized model's.
    pub of_quantized: bool,
    /// Of its outputs.
    pub outcome: Tally,
}

impl Variant {
    /// Computes the outputs of a batch from the values that it shares, and counts them.
    pub fn step(
        &mut self,
        values: &HashMap<String, Tensor>,
        expected: &[Tensor],
        labels: &Tensor,
    ) -> Result<()> {
        let inputs = self.suffix.inputs.iter().map(|name| {
            let value = values.get(name).map(Tensor::shallow_clone);
            value.ok_or_else(|| Error::bug(format!("value `{name}` was not kept")))
        });
        let inputs: Vec<Tensor> = inputs.collect::<Result<_>>()?;
        // Anew for each batch: kept, the weights would be in memory as often as there are layers.
        let mut program = Program::compile(&self.suffix.model, &interp::Options::default())?;
        let found = program.forward(&inputs, Mode::Eval, &mut |_, _| Ok(()))?;
        self.outcome.add(expected, &found, labels)
    }
}

/// Counts of a variant's outputs.
#[derive(Clone)]
pub(super) struct Tally {
    fidelity: Fidelity,
    score: Option<Score>,
}

impl Tally {
    /// Of a model with these answers; `None`: it is no classifier.
    pub fn new(classes: Option<Classes>) -> Self {
        let score =
            |classes: Classes| Score::new(classes.count).of_probabilities(classes.probabilities);
        Self { fidelity: Fidelity::default(), score: classes.map(score) }
    }

    /// Takes the outputs of a batch, and what they should be.
    pub fn add(&mut self, expected: &[Tensor], found: &[Tensor], labels: &Tensor) -> Result<()> {
        for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
            if !matches!(expected.kind(), tch::Kind::Float) {
                continue;
            }
            if expected.size() != found.size() {
                return Err(Error::user(format!(
                    "output {index} is {:?} of the float model, {:?} of a quantized one: values cannot be compared",
                    expected.size(),
                    found.size()
                ))
                .help("boxes that were suppressed already are more or fewer: export the detector without NonMaxSuppression"));
            }
            self.fidelity.add(expected, found)?;
        }
        match (&mut self.score, found.first()) {
            (Some(score), Some(logits)) => score.add(logits, labels),
            _ => Ok(()),
        }
    }

    /// The figures so far.
    pub fn outcome(&self) -> Outcome {
        let figures = self.score.as_ref().map(Score::figures);
        Outcome {
            fidelity: self.fidelity.figures(),
            top1: figures.map(|figures| figures.top1),
            loss: figures.map(|figures| figures.loss),
        }
    }
}

/// What a classifier answers.
#[derive(Clone, Copy)]
pub(super) struct Classes {
    /// How many classes it tells apart.
    count: usize,
    /// Whether it gives probabilities, not logits.
    probabilities: bool,
}

/// Whether the model's one output is `[N, classes]`, and what it answers, where it is a classifier of the data.
pub(super) fn classes(model: &Model, dataset: &Dataset) -> Result<(bool, Option<Classes>)> {
    let mut program = Program::compile(model, &interp::Options::default())?;
    let first = Loader::new(dataset, 1, Order::Subset(vec![0]), false, 1).next();
    let first = first.ok_or_else(|| Error::bug("a data set without a sample"))??;
    let outputs = program.forward(&[first.images], Mode::Eval, &mut |_, _| Ok(()))?;
    let size = outputs.first().map(Tensor::size).unwrap_or_default();
    let (&[1, classes], 1) = (&size[..], outputs.len()) else { return Ok((false, None)) };
    let fits = dataset.labelled() && classes as usize >= dataset.classes().len().max(1);
    let probabilities = model.graph.ending().is_some_and(|node| node.op_type == "Softmax");
    Ok((true, fits.then_some(Classes { count: classes as usize, probabilities })))
}

/// A whole model whose values others start from.
pub(super) struct Base {
    /// The model, with the values that are kept.
    pub seen: Seen,
    /// Of its outputs.
    pub outcome: Tally,
}

impl Base {
    /// `watch` are the values that are kept of a step.
    pub fn new(model: &Model, watch: BTreeSet<String>, classes: Option<Classes>) -> Result<Self> {
        let names: Vec<String> = watch.into_iter().collect();
        Ok(Self { seen: Seen::new(model, &names)?, outcome: Tally::new(classes) })
    }
}
