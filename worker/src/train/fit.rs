//! The training loop.

use std::path::Path;

use qpipe::stages::training::{Optimizer as Rule, Schedule};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::checkpoint::{self, Checkpoint};
use super::classifier::Classifier;
use super::optimizer::Optimizer;
use super::schedule::rate;
use super::score::Figures;
use crate::data::{Batch, Dataset, Loader, Order};
use crate::interp::Mode;
use crate::{Error, Result};

/// How to train.
pub struct Fit<'a> {
    /// Training data.
    pub train: &'a Dataset,
    /// Data that chooses the best epoch.
    pub valid: &'a Dataset,
    /// Passes over the training data.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: usize,
    /// The optimizer.
    pub optimizer: Rule,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Label smoothing.
    pub label_smoothing: f64,
    /// Steps of each epoch and batches of each validation, at most.
    pub max_steps: Option<u64>,
    /// Whether the model as it came competes as epoch 0.
    pub epoch_zero: bool,
    /// Seed of order, random transforms and dropout.
    pub seed: u64,
    /// Threads of the loader.
    pub threads: usize,
    /// Folder of the checkpoint.
    pub checkpoints: &'a Path,
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1; 0 is the model as it came.
    pub epoch: u32,
    /// Learning rate of its last step; none for epoch 0.
    pub lr: Option<f64>,
    /// Mean loss over the steps, label smoothing included; none for epoch 0.
    pub train_loss: Option<f64>,
    /// Accuracy over the steps, before each, 0…1; none for epoch 0.
    pub train_top1: Option<f64>,
    /// Mean loss on the validation data.
    pub valid_loss: f64,
    /// Accuracy on the validation data, 0…1.
    pub valid_top1: f64,
}

/// What came of a training; the classifier holds the best epoch.
pub struct Fitted {
    /// All epochs.
    pub history: Vec<Epoch>,
    /// Position of the best in `history`.
    pub best: usize,
}

/// Is told how a training goes.
pub trait Watch {
    /// `done` of `total` steps, and of what.
    fn progress(&mut self, done: u64, total: u64, message: &str);
    /// A line for the log.
    fn log(&mut self, message: String);
}

impl Fit<'_> {
    fn per_epoch(&self) -> u64 {
        let batches = self.train.len().div_ceil(self.batch_size.max(1)) as u64;
        batches.min(self.max_steps.unwrap_or(u64::MAX)).max(1)
    }

    /// Trains; the best epoch's parameters are in the classifier's program afterwards. Best is the highest
    /// accuracy on the validation data, of equals the lowest loss, of equals the first.
    ///
    /// The result depends on data, settings and seed alone: a training that goes on from the checkpoint of a
    /// killed one gives the same bytes.
    ///
    /// # Errors
    /// A loss that is not finite, with its step and samples; what the data's files are guilty of.
    pub fn run(&self, classifier: &mut Classifier, watch: &mut dyn Watch) -> Result<Fitted> {
        classifier.program.train(true);
        let mut optimizer =
            Optimizer::new(self.optimizer.clone(), classifier.program.parameters())?;
        let resumed = checkpoint::load(self.checkpoints, &mut classifier.program, &mut optimizer)?;
        let mut state = match resumed {
            Some(checkpoint) => {
                let done = checkpoint.history.last().map_or(0, |epoch| epoch.epoch);
                watch.log(format!("going on after epoch {done}, from its checkpoint"));
                checkpoint
            }
            None => Checkpoint { history: Vec::new(), best: classifier.program.state()? },
        };
        if self.epoch_zero && state.history.is_empty() {
            let valid = self.validate(classifier, watch, 0)?;
            self.finish(
                classifier,
                &optimizer,
                &mut state,
                watch,
                Epoch {
                    epoch: 0,
                    lr: None,
                    train_loss: None,
                    train_top1: None,
                    valid_loss: valid.loss,
                    valid_top1: valid.top1,
                },
            )?;
        }
        let next = state.history.last().map_or(0, |epoch| epoch.epoch) + 1;
        for epoch in next..=self.epochs {
            let (lr, train_loss, train_top1) =
                self.epoch(classifier, &mut optimizer, watch, epoch)?;
            let valid = self.validate(classifier, watch, epoch)?;
            self.finish(
                classifier,
                &optimizer,
                &mut state,
                watch,
                Epoch {
                    epoch,
                    lr: Some(lr),
                    train_loss: Some(train_loss),
                    train_top1: Some(train_top1),
                    valid_loss: valid.loss,
                    valid_top1: valid.top1,
                },
            )?;
        }
        classifier.program.train(false);
        classifier.program.load_state(&state.best)?;
        let best = best(&state.history);
        Ok(Fitted { history: state.history, best })
    }

    /// Records an epoch, keeps its parameters if it is the best, and writes the checkpoint.
    fn finish(
        &self,
        classifier: &Classifier,
        optimizer: &Optimizer,
        state: &mut Checkpoint,
        watch: &mut dyn Watch,
        epoch: Epoch,
    ) -> Result<()> {
        let train = match (epoch.train_loss, epoch.train_top1) {
            (Some(loss), Some(top1)) => {
                format!("train loss {loss:.4}, top-1 {:.2} %; ", 100.0 * top1)
            }
            _ => String::new(),
        };
        watch.log(format!(
            "epoch {}/{}: {train}valid loss {:.4}, top-1 {:.2} %",
            epoch.epoch,
            self.epochs,
            epoch.valid_loss,
            100.0 * epoch.valid_top1
        ));
        state.history.push(epoch);
        if best(&state.history) + 1 == state.history.len() {
            state.best = classifier.program.state()?;
        }
        checkpoint::save(self.checkpoints, &classifier.program, optimizer, state)
    }

    fn message(&self, epoch: u32) -> String {
        format!("epoch {epoch}/{}", self.epochs)
    }

    /// Steps over the training data once; the last learning rate, mean loss and accuracy.
    fn epoch(
        &self,
        classifier: &mut Classifier,
        optimizer: &mut Optimizer,
        watch: &mut dyn Watch,
        epoch: u32,
    ) -> Result<(f64, f64, f64)> {
        let per_epoch = self.per_epoch();
        let (steps, before) =
            (per_epoch * u64::from(self.epochs), per_epoch * u64::from(epoch - 1));
        let order = Order::Shuffled { seed: self.seed, epoch: u64::from(epoch) };
        let loader = Loader::new(self.train, self.batch_size, order, true, self.threads);
        // Of dropout, which draws from libtorch's own generator.
        tch::manual_seed((self.seed ^ (u64::from(epoch) << 32)) as i64);
        let (mut loss_sum, mut right, mut samples, mut lr) = (0.0, 0, 0, 0.0);
        for (step, batch) in (0..per_epoch).zip(loader) {
            let batch = batch?;
            lr = rate(&self.schedule, self.optimizer.lr(), before + step, steps, per_epoch);
            let count = batch.labels.size()[0];
            let (loss, hits) = self.step(classifier, optimizer, &batch, lr)?;
            if !loss.is_finite() {
                return Err(self.not_finite(loss, epoch, step + 1, lr));
            }
            loss_sum += loss * count as f64;
            right += hits;
            samples += count;
            let message = format!("{}, loss {:.3}", self.message(epoch), loss_sum / samples as f64);
            watch.progress(before + step + 1, steps, &message);
        }
        let samples = samples.max(1) as f64;
        Ok((lr, loss_sum / samples, right as f64 / samples))
    }

    /// One step: its loss, and how many samples were right before it.
    fn step(
        &self,
        classifier: &mut Classifier,
        optimizer: &mut Optimizer,
        batch: &Batch,
        lr: f64,
    ) -> Result<(f64, i64)> {
        let images = [batch.images.shallow_clone()];
        let logits =
            classifier.program.forward(&images, Mode::Train, &mut |_, _| Ok(()))?.remove(0);
        let labels = batch.labels.f_to_device(logits.device())?;
        let loss = logits.f_cross_entropy_loss::<Tensor>(
            &labels,
            None,
            tch::Reduction::Mean,
            -100,
            self.label_smoothing,
        )?;
        let value = loss.f_double_value(&[])?;
        if value.is_finite() {
            let gradients = classifier.program.gradients(&loss)?;
            optimizer.step(classifier.program.parameters(), &gradients, lr)?;
        }
        let hits = logits.f_detach()?.f_argmax(1, false)?.f_eq_tensor(&labels)?;
        Ok((value, hits.f_sum(Kind::Int64)?.f_int64_value(&[])?))
    }

    fn validate(
        &self,
        classifier: &mut Classifier,
        watch: &mut dyn Watch,
        epoch: u32,
    ) -> Result<Figures> {
        let steps = self.per_epoch() * u64::from(self.epochs);
        let done = self.per_epoch() * u64::from(epoch);
        let message = format!("{}, validating", self.message(epoch));
        let mut each = |_, _: &Tensor| {
            watch.progress(done, steps, &message);
            Ok(())
        };
        let score = classifier.score(
            self.valid,
            self.batch_size,
            self.threads,
            self.max_steps,
            &mut each,
        )?;
        Ok(score.figures())
    }

    fn not_finite(&self, loss: f64, epoch: u32, step: u64, lr: f64) -> Error {
        let first = (step as usize - 1) * self.batch_size;
        let order = crate::data::permutation(self.train.len(), self.seed, u64::from(epoch));
        let names: Vec<String> =
            order.iter().skip(first).take(3).map(|&index| self.train.name(index)).collect();
        Error::user(format!(
            "the loss is {loss} in epoch {epoch}, step {step} (learning rate {lr:.3e}; samples {}, …)",
            names.join(", ")
        ))
        .help("lower the learning rate or add warm-up; if it is so in the first step, look at these samples and at `normalize`")
    }
}

/// Position of the best epoch.
fn best(history: &[Epoch]) -> usize {
    let better = |best: usize, index: usize| {
        let (a, b) = (&history[index], &history[best]);
        let wins = a.valid_top1 > b.valid_top1
            || (a.valid_top1 == b.valid_top1 && a.valid_loss < b.valid_loss);
        if wins { index } else { best }
    };
    (0..history.len()).fold(0, better)
}
