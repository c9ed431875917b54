//! The training loop.

use std::path::Path;

use qpipe::stages::finetune::ScaleEma;
use qpipe::stages::training::{BestBy, EarlyStop, Optimizer as Rule, Schedule, WeightAverage};
use tch::Tensor;

use super::averages::{Average, Follower};
use super::checkpoint::{self, Checkpoint};
use super::classifier::Classifier;
use super::distillation::Teacher;
use super::history::{Epoch, best, stops};
use super::optimizer::Optimizer;
use super::pass::PassContext;
use super::recording::Recording;
use super::scaler::Scaler;
use super::score::Figures;
use crate::data::Dataset;
use crate::interp::Program;
use crate::passes;
use crate::torch::{self, Half, KernelSearch};
use crate::{Error, Result};

/// Steps from which compiled kernels of depthwise layers are worth it: MobileNetV2 takes 2 to 3 ms a step less with them on an H200, and 7 to 10 s once.
const COMPILED_FROM: u64 = 4_000;
/// Steps from which cuDNN's trial is worth it: 0 to 0.8 ms a step, and 20 s once.
const TRIED_FROM: u64 = 20_000;

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
    /// Weights of the classes in the loss; empty: all count the same.
    pub class_weights: &'a [f32],
    /// Average of the weights, which is validated and kept.
    pub average: Option<WeightAverage>,
    /// By what the best epoch is chosen.
    pub best_by: BestBy,
    /// When to stop before the last epoch.
    pub early_stop: Option<EarlyStop>,
    /// Largest norm of a step's gradients.
    pub clip_norm: Option<f64>,
    /// What training steps compute convolutions and matrix products in, where not in float32.
    pub amp: Option<Half>,
    /// Whether passes are recorded as CUDA graphs, where there is a GPU.
    pub cuda_graph: bool,
    /// Whether cuDNN tries its algorithms for whole batches; by default where the training is long.
    pub cudnn_benchmark: Option<bool>,
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
pub(super) struct State<'a> {
    pub optimizer: Optimizer,
    pub average: Option<Average>,
    pub context: PassContext<'a>,
    pub recording: Recording,
}

impl Fit<'_> {
    pub(super) fn per_epoch(&self) -> u64 {
        let batches = self.train.len().div_ceil(self.batch_size.max(1));
        let steps = batches.div_ceil(self.accumulate.max(1)) as u64;
        steps.min(self.max_steps.unwrap_or(u64::MAX)).max(1)
    }

    /// Trains; the best epoch's parameters are in the classifier's program afterwards. Best is what
    /// [`Fit::best_by`] says, of equals the first.
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
        passes::check_batch(&classifier.model, self.batch_size)
            .map_err(|error| error.key("batch_size"))?;
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
            if self
                .early_stop
                .as_ref()
                .is_some_and(|rule| stops(&checkpoint.history, rule, self.best_by))
            {
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
        let best = best(&checkpoint.history, self.best_by);
        // The last step's damage shows in no loss of a training batch.
        if let Some(epoch) = checkpoint.history.get(best).filter(|it| it.valid_loss.is_nan()) {
            return Err(Error::user(format!(
                "the validation loss is not finite after epoch {}, the best of all",
                epoch.epoch
            ))
            .help("lower the learning rate or add warm-up"));
        }
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
        let weights = self.class_weights;
        let class_weights = (!weights.is_empty())
            .then(|| Tensor::f_from_slice(weights)?.f_to_device(classifier.program.device()))
            .transpose()?;
        let context = PassContext { teacher, follower, scaler: scaled, class_weights };
        let recording = Recording::wanted(self, classifier.program.device());
        Ok((State { optimizer, average: averaged, context, recording }, checkpoint))
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
        if best(&checkpoint.history, self.best_by) + 1 == checkpoint.history.len() {
            checkpoint.best = match &state.average {
                Some(average) => average.copy()?,
                None => classifier.program.state()?,
            };
        }
        let parts = checkpoint::Kept {
            optimizer: &state.optimizer,
            average: state.average.as_ref(),
            scaler: state.context.scaler.as_ref(),
        };
        checkpoint::save(self.checkpoints, &classifier.program, &parts, checkpoint)
    }

    /// Lets convolutions of a batch of so many images wait for kernels, or not: the last batch of an epoch, a smaller one, comes once in each.
    pub(super) fn choose_kernels(&self, images: i64) -> Result<()> {
        let steps = self.per_epoch() * u64::from(self.epochs);
        let whole = images == self.batch_size as i64;
        torch::search_kernels(match (whole, torch::is_deterministic()) {
            // The same kernels however long the training is, and none by trial: which is the fastest is a matter of chance.
            (_, true) => KernelSearch::Compiled,
            (true, false) => worth(steps, self.cudnn_benchmark),
            (false, false) => KernelSearch::Quick,
        })
    }

    pub(super) fn message(&self, epoch: u32) -> String {
        format!("epoch {epoch}/{}", self.epochs)
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
        torch::search_kernels(KernelSearch::Quick)?;
        let mut each = |_, _: &Tensor| {
            watch.progress(done, steps, &message);
            Ok(())
        };
        // As `evaluate` computes.
        let _exact = torch::WithoutTf32::begin()?;
        let score = classifier.score(
            self.valid,
            self.batch_size,
            self.threads,
            self.max_steps,
            &mut each,
        )?;
        Ok(score.figures())
    }
}

/// What convolutions of whole batches wait for at the first of so many steps.
fn worth(steps: u64, cudnn_benchmark: Option<bool>) -> KernelSearch {
    match cudnn_benchmark {
        Some(true) => KernelSearch::Tried,
        None if steps >= TRIED_FROM => KernelSearch::Tried,
        _ if steps >= COMPILED_FROM => KernelSearch::Compiled,
        _ => KernelSearch::Quick,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_trainings_wait_for_faster_kernels() {
        assert_eq!(worth(215, None), KernelSearch::Quick);
        assert_eq!(worth(4_000, None), KernelSearch::Compiled);
        assert_eq!(worth(20_000, None), KernelSearch::Tried);
        assert_eq!(worth(215, Some(true)), KernelSearch::Tried);
        assert_eq!(worth(215, Some(false)), KernelSearch::Quick);
        assert_eq!(worth(20_000, Some(false)), KernelSearch::Compiled);
    }
}
