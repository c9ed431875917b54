//! The training loop.

use std::path::Path;
use std::time::{Duration, Instant};

use qpipe::stages::finetune::ScaleEma;
use qpipe::stages::training::{EarlyStop, Optimizer as Rule, Schedule, WeightAverage};
use tch::{Device, Tensor};

use super::averages::{Average, Follower};
use super::checkpoint::{self, Checkpoint};
use super::classifier::Classifier;
use super::distillation::Teacher;
use super::gradients::{self, Sum};
use super::history::{Epoch, best, stops};
use super::optimizer::Optimizer;
use super::pass::Company;
use super::pending::{self, NotFinite, Seen};
use super::recording::Recording;
use super::scaler::Scaler;
use super::schedule::rate;
use super::score::Figures;
use crate::data::{Batch, Dataset, Loader, Order};
use crate::interp::Program;
use crate::torch::{Half, Mark, Stopwatch};
use crate::{Error, Result, torch};

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
    /// What training steps compute convolutions and matrix products in, where not in float32.
    pub amp: Option<Half>,
    /// Whether passes are recorded as CUDA graphs, where there is a GPU.
    pub cuda_graph: bool,
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
    company: Company<'a>,
    recording: Recording,
}

/// Where an epoch tells how it goes.
struct Told<'a> {
    watch: &'a mut dyn Watch,
    seen: Seen,
    epoch: u32,
    batch: pending::Batch,
}

/// Batches that a GPU is ahead of what is told of them.
const AHEAD: usize = 16;

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
        let scaler = |program: &Program| {
            let wanted = self.amp == Some(Half::Float16);
            wanted.then(|| Scaler::new(program.device())).transpose()
        };
        let mut scaled = scaler(program)?;
        let mut parts = checkpoint::Parts {
            optimizer: &mut optimizer,
            average: averaged.as_mut(),
            scaler: scaled.as_mut(),
        };
        let resumed = checkpoint::load(self.checkpoints, program, &mut parts)?;
        let checkpoint = if let Some(checkpoint) = resumed {
            let done = checkpoint.history.last().map_or(0, |epoch| epoch.epoch);
            watch.log(format!("going on after epoch {done}, from its checkpoint"));
            checkpoint
        } else {
            // A damaged one may have been read in part.
            program.load_state(&start)?;
            optimizer = Optimizer::new(self.optimizer.clone(), program.parameters())?;
            averaged = average(program)?;
            scaled = scaler(program)?;
            Checkpoint { history: Vec::new(), best: start }
        };
        let follow = |ema: &ScaleEma| Follower::new(ema.momentum, &classifier.program);
        let follower = self.scale_ema.as_ref().map(follow).transpose()?;
        let company = Company { teacher, follower, scaler: scaled };
        let recording = Recording::wanted(self, classifier.program.device(), &company);
        Ok((State { optimizer, average: averaged, company, recording }, checkpoint))
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
        let parts = checkpoint::Kept {
            optimizer: &state.optimizer,
            average: state.average.as_ref(),
            scaler: state.company.scaler.as_ref(),
        };
        checkpoint::save(self.checkpoints, &classifier.program, &parts, checkpoint)
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
        self.draw_from_start(epoch);
        let device = classifier.program.device();
        let seen = Seen::new(if device == Device::Cpu { 1 } else { AHEAD });
        let batch = pending::Batch { number: 0, lr: 0.0 };
        let mut told = Told { watch, seen, epoch, batch };
        let began = Instant::now();
        let mut busy = Stopwatch::default();
        for step in 0..per_epoch {
            let at = before + step;
            told.batch.lr = rate(&self.schedule, self.optimizer.lr(), at, steps, per_epoch);
            let mut sum = Sum::default();
            for loaded in loader.by_ref().take(self.accumulate.max(1)) {
                told.batch.number += 1;
                let (loaded, begin) = (loaded?, Mark::set(device));
                let bad = self.batch(classifier, state, &loaded, &mut sum, &mut told)?;
                self.check(bad, state, epoch)?;
                busy.add(begin, Mark::set(device));
            }
            let begin = Mark::set(device);
            self.step(classifier, state, sum.mean()?, told.batch.lr)?;
            let follows = |ema: &ScaleEma| (at as f64) < ema.until * steps as f64;
            if let Some(follower) = &mut state.company.follower
                && self.scale_ema.as_ref().is_some_and(follows)
            {
                follower.update()?;
            }
            if let Some(average) = &mut state.average {
                average.update(&classifier.program)?;
            }
            busy.add(begin, Mark::set(device));
            let message = format!("{}, loss {:.3}", self.message(epoch), told.seen.figures().0);
            told.watch.progress(at + 1, steps, &message);
        }
        let bad = told.seen.tell()?;
        self.check(bad, state, epoch)?;
        let (loss, top1) = told.seen.figures();
        told.watch.log(idle(device, began.elapsed(), busy.total()));
        Ok((told.batch.lr, loss, top1))
    }

    /// Of dropout, which draws from libtorch's own generator.
    fn draw_from_start(&self, epoch: u32) {
        tch::manual_seed((self.seed ^ (u64::from(epoch) << 32)) as i64);
    }

    /// One step of the optimizer; none where gradients in half precision overflowed.
    fn step(
        &self,
        classifier: &Classifier,
        state: &mut State,
        mut gradients: Vec<Tensor>,
        lr: f64,
    ) -> Result<()> {
        let scaler = &mut state.company.scaler;
        let found = scaler.as_mut().map(|scaler| scaler.unscale(&gradients)).transpose()?;
        if let Some(most) = self.clip_norm {
            gradients::clip(&mut gradients, most)?;
        }
        state.optimizer.step(classifier.program.parameters(), &gradients, lr, found)?;
        scaler.as_mut().map_or(Ok(()), Scaler::update)
    }

    /// A loss that is not finite ends the training. In half precision it is one that overflowed, until the scale of losses says otherwise.
    fn check(&self, bad: Option<NotFinite>, state: &State, epoch: u32) -> Result<()> {
        let Some(bad) = bad else { return Ok(()) };
        match &state.company.scaler {
            Some(scaler) if scaler.factor()? >= 1.0 => Ok(()),
            _ => Err(self.not_finite(bad, epoch)),
        }
    }

    /// Adds the gradients of a batch; a loss that turns out not to be finite.
    fn batch(
        &self,
        classifier: &mut Classifier,
        state: &mut State,
        batch: &Batch,
        sum: &mut Sum,
        told: &mut Told,
    ) -> Result<Option<NotFinite>> {
        let labels = Vec::<i64>::try_from(&batch.labels)?;
        let count = labels.len() as i64;
        let labels = torch::sent(&labels, &[count], classifier.program.device())?;
        let given = [&batch.images, &labels];
        let (recording, company) = (&mut state.recording, &mut state.company);
        if told.batch.number == 1
            && let Some(recorded) = recording.begin(self, classifier, company, given)?
        {
            self.draw_from_start(told.epoch);
            told.watch.log(match recorded {
                Ok(()) => "a batch's pass was recorded as a CUDA graph".to_owned(),
                Err(error) => format!(
                    "kernels are launched one by one, not as a CUDA graph: {}",
                    error.message
                ),
            });
        }
        let mut pass = recording.pass(self, classifier, company, given)?;
        if self.accumulate > 1 {
            // The next batch of the step writes to the same memory, where passes are recorded.
            for gradient in pass.gradients.iter_mut().filter(|gradient| gradient.defined()) {
                *gradient = torch::copied(gradient)?;
            }
        }
        sum.add(pass.gradients, count)?;
        told.seen.add(pass.told, count, told.batch)
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
    fn not_finite(&self, bad: NotFinite, epoch: u32) -> Error {
        let NotFinite { loss, batch: pending::Batch { number: batch, lr } } = bad;
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

/// The line of the log that tells how long an epoch's steps took, and for what share of that the device had nothing to do but wait for images. Times
/// stand in the log only: the history has the same bytes each time.
fn idle(device: Device, whole: Duration, busy: Duration) -> String {
    let share = 1.0 - busy.as_secs_f64() / whole.as_secs_f64().max(1e-9);
    let name = if device == Device::Cpu { "CPU" } else { "GPU" };
    format!(
        "steps {:.2} s, {name} idle {:.1} %",
        whole.as_secs_f64(),
        100.0 * share.clamp(0.0, 1.0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_how_long_a_device_waited_for_images() {
        let line = |device, whole, busy| {
            idle(device, Duration::from_millis(whole), Duration::from_millis(busy))
        };
        assert_eq!(line(Device::Cuda(0), 2_500, 2_000), "steps 2.50 s, GPU idle 20.0 %");
        assert_eq!(line(Device::Cpu, 1_000, 1_001), "steps 1.00 s, CPU idle 0.0 %");
        assert_eq!(line(Device::Cpu, 0, 0), "steps 0.00 s, CPU idle 100.0 %");
    }
}
