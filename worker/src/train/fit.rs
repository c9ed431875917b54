//! The training loop.

use std::path::Path;

use qpipe::stages::finetune::ScaleEma;
use qpipe::stages::training::{EarlyStop, Optimizer as Rule, Schedule, WeightAverage};
use tch::{Kind, Tensor};

use super::averages::{Average, Follower};
use super::checkpoint::{self, Checkpoint};
use super::classifier::Classifier;
use super::distillation::Teacher;
use super::gradients::{self, Sum};
use super::history::{Epoch, best, stops};
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
    /// Images a batch.
    pub batch_size: usize,
    /// Batches a step.
    pub accumulate: usize,
    /// The optimizer.
    pub optimizer: Rule,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Label smoothing.
    pub label_smoothing: f64,
    /// Average of the weights, which is validated and kept.
    pub average: Option<WeightAverage>,
    /// When to stop before the last epoch.
    pub early_stop: Option<EarlyStop>,
    /// Largest norm of a step's gradients.
    pub clip_norm: Option<f64>,
    /// How scales of activations follow their magnitudes, where the program was compiled for it.
    pub scale_ema: Option<ScaleEma>,
    /// Names of the values that the program watches: first those that a teacher compares, then others.
    pub watched: &'a [String],
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

/// What a training changes besides the program.
struct State<'a> {
    optimizer: Optimizer,
    average: Option<Average>,
    follower: Option<Follower>,
    teacher: Option<&'a mut Teacher>,
}

/// Sums over the samples of an epoch.
#[derive(Default)]
struct Seen {
    loss: f64,
    right: i64,
    samples: i64,
}

impl Fit<'_> {
    fn per_epoch(&self) -> u64 {
        let batches = self.train.len().div_ceil(self.batch_size.max(1));
        let steps = batches.div_ceil(self.accumulate.max(1)) as u64;
        steps.min(self.max_steps.unwrap_or(u64::MAX)).max(1)
    }

    /// Trains; the best epoch's parameters are in the classifier's program afterwards. Best is the highest
    /// accuracy on the validation data, of equals the lowest loss, of equals the first.
    ///
    /// The result depends on data, settings and seed alone: a training that goes on from the checkpoint of a
    /// killed one gives the same bytes.
    ///
    /// # Errors
    /// A loss that is not finite, with its step and samples; what the data's files are guilty of.
    pub fn run(
        &self,
        classifier: &mut Classifier,
        teacher: Option<&mut Teacher>,
        watch: &mut dyn Watch,
    ) -> Result<Fitted> {
        classifier.program.train(true);
        let (mut state, mut checkpoint) = self.begin(classifier, teacher, watch)?;
        if self.epoch_zero && checkpoint.history.is_empty() {
            let valid = self.validate(classifier, watch, 0)?;
            let epoch = Epoch {
                epoch: 0,
                lr: None,
                train_loss: None,
                train_top1: None,
                valid_loss: valid.loss,
                valid_top1: valid.top1,
            };
            self.finish(classifier, &state, &mut checkpoint, watch, epoch)?;
        }
        let next = checkpoint.history.last().map_or(0, |epoch| epoch.epoch) + 1;
        for epoch in next..=self.epochs {
            if self.early_stop.as_ref().is_some_and(|rule| stops(&checkpoint.history, rule)) {
                watch.log(format!("stopped after epoch {}: no better for long enough", epoch - 1));
                break;
            }
            let (lr, train_loss, train_top1) = self.epoch(classifier, &mut state, watch, epoch)?;
            let valid = match &state.average {
                Some(average) => {
                    average.within(classifier, |own| self.validate(own, watch, epoch))?
                }
                None => self.validate(classifier, watch, epoch)?,
            };
            let epoch = Epoch {
                epoch,
                lr: Some(lr),
                train_loss: Some(train_loss),
                train_top1: Some(train_top1),
                valid_loss: valid.loss,
                valid_top1: valid.top1,
            };
            self.finish(classifier, &state, &mut checkpoint, watch, epoch)?;
        }
        classifier.program.train(false);
        classifier.program.load_state(&checkpoint.best)?;
        let best = best(&checkpoint.history);
        Ok(Fitted { history: checkpoint.history, best })
    }

    /// A new state, or that of the checkpoint.
    fn begin<'t>(
        &self,
        classifier: &mut Classifier,
        teacher: Option<&'t mut Teacher>,
        watch: &mut dyn Watch,
    ) -> Result<(State<'t>, Checkpoint)> {
        let program = &mut classifier.program;
        let start = program.state()?;
        let mut optimizer = Optimizer::new(self.optimizer.clone(), program.parameters())?;
        let average = |program: &_| {
            self.average.as_ref().map(|own| Average::new(own.decay, program)).transpose()
        };
        let mut averaged = average(program)?;
        let resumed =
            checkpoint::load(self.checkpoints, program, &mut optimizer, averaged.as_mut())?;
        let checkpoint = if let Some(checkpoint) = resumed {
            let done = checkpoint.history.last().map_or(0, |epoch| epoch.epoch);
            watch.log(format!("going on after epoch {done}, from its checkpoint"));
            checkpoint
        } else {
            // A damaged one may have been read in part.
            program.load_state(&start)?;
            optimizer = Optimizer::new(self.optimizer.clone(), program.parameters())?;
            averaged = average(program)?;
            Checkpoint { history: Vec::new(), best: start }
        };
        let follower =
            self.scale_ema.as_ref().map(|ema| Follower::new(ema.momentum, &classifier.program));
        Ok((State { optimizer, average: averaged, follower, teacher }, checkpoint))
    }

    /// Records an epoch, keeps its parameters, or their average, if it is the best, and writes the checkpoint.
    fn finish(
        &self,
        classifier: &Classifier,
        state: &State,
        checkpoint: &mut Checkpoint,
        watch: &mut dyn Watch,
        epoch: Epoch,
    ) -> Result<()> {
        watch.log(epoch.line(self.epochs));
        checkpoint.history.push(epoch);
        if best(&checkpoint.history) + 1 == checkpoint.history.len() {
            checkpoint.best = match &state.average {
                Some(average) => average.copy()?,
                None => classifier.program.state()?,
            };
        }
        let average = state.average.as_ref();
        checkpoint::save(
            self.checkpoints,
            &classifier.program,
            &state.optimizer,
            average,
            checkpoint,
        )
    }

    fn message(&self, epoch: u32) -> String {
        format!("epoch {epoch}/{}", self.epochs)
    }

    /// Steps over the training data once; the last learning rate, mean loss and accuracy.
    fn epoch(
        &self,
        classifier: &mut Classifier,
        state: &mut State,
        watch: &mut dyn Watch,
        epoch: u32,
    ) -> Result<(f64, f64, f64)> {
        let per_epoch = self.per_epoch();
        let (steps, before) =
            (per_epoch * u64::from(self.epochs), per_epoch * u64::from(epoch - 1));
        let order = Order::Shuffled { seed: self.seed, epoch: u64::from(epoch) };
        let mut loader = Loader::new(self.train, self.batch_size, order, true, self.threads);
        // Of dropout, which draws from libtorch's own generator.
        tch::manual_seed((self.seed ^ (u64::from(epoch) << 32)) as i64);
        let (mut seen, mut lr, mut batches) = (Seen::default(), 0.0, 0);
        for step in 0..per_epoch {
            let at = before + step;
            lr = rate(&self.schedule, self.optimizer.lr(), at, steps, per_epoch);
            let mut sum = Sum::default();
            for batch in loader.by_ref().take(self.accumulate.max(1)) {
                batches += 1;
                let loss = self.batch(classifier, state, &batch?, &mut sum, &mut seen)?;
                if !loss.is_finite() {
                    return Err(self.not_finite(loss, epoch, batches, lr));
                }
            }
            let mut gradients = sum.mean()?;
            if let Some(most) = self.clip_norm {
                gradients::clip(&mut gradients, most)?;
            }
            state.optimizer.step(classifier.program.parameters(), &gradients, lr)?;
            let follows = |ema: &ScaleEma| (at as f64) < ema.until * steps as f64;
            if let Some(follower) = &mut state.follower
                && self.scale_ema.as_ref().is_some_and(follows)
            {
                follower.update()?;
            }
            if let Some(average) = &mut state.average {
                average.update(&classifier.program)?;
            }
            let mean = seen.loss / seen.samples.max(1) as f64;
            let message = format!("{}, loss {mean:.3}", self.message(epoch));
            watch.progress(at + 1, steps, &message);
        }
        let samples = seen.samples.max(1) as f64;
        Ok((lr, seen.loss / samples, seen.right as f64 / samples))
    }

    /// Adds the gradients of a batch, if its loss is finite; the loss.
    fn batch(
        &self,
        classifier: &mut Classifier,
        state: &mut State,
        batch: &Batch,
        sum: &mut Sum,
        seen: &mut Seen,
    ) -> Result<f64> {
        let images = [batch.images.shallow_clone()];
        let compared = state.teacher.as_ref().map_or(0, |teacher| teacher.layers.len());
        let mut features: Vec<Option<Tensor>> = (0..compared).map(|_| None).collect();
        let follower = &mut state.follower;
        let mut watch = |index: usize, value: &Tensor| -> Result<()> {
            match (features.get_mut(index), follower.as_mut()) {
                (Some(feature), _) => *feature = Some(value.shallow_clone()),
                (None, Some(follower)) => follower.see(&self.watched[index], value)?,
                (None, None) => {}
            }
            Ok(())
        };
        let logits = classifier.program.forward(&images, Mode::Train, &mut watch)?.remove(0);
        let labels = batch.labels.f_to_device(logits.device())?;
        let mut loss = logits.f_cross_entropy_loss::<Tensor>(
            &labels,
            None,
            tch::Reduction::Mean,
            -100,
            self.label_smoothing,
        )?;
        if let Some(teacher) = &mut state.teacher {
            let own = teacher.loss(&batch.images, &logits, &features)?;
            loss = loss.f_mul_scalar(teacher.settings.labels)?.f_add(&own)?;
        }
        let value = loss.f_double_value(&[])?;
        let count = batch.labels.size()[0];
        if value.is_finite() {
            sum.add(classifier.program.gradients(&loss)?, count)?;
        }
        let hits = logits.f_detach()?.f_argmax(1, false)?.f_eq_tensor(&labels)?;
        seen.loss += value * count as f64;
        seen.right += hits.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        seen.samples += count;
        Ok(value)
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

    /// Of the loss of an epoch's batch, counted from 1.
    fn not_finite(&self, loss: f64, epoch: u32, batch: usize, lr: f64) -> Error {
        let first = (batch - 1) * self.batch_size;
        let step = batch.div_ceil(self.accumulate.max(1));
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
