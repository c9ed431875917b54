//! An epoch of training: its steps, and what is told of them.

use std::time::{Duration, Instant};

use qpipe::stages::finetune::ScaleEma;
use tch::{Device, Tensor};

use super::classifier::Classifier;
use super::fit::{Fit, State, Watch};
use super::gradients::{self, Sum};
use super::pending::{self, NotFinite, Seen};
use super::scaler::Scaler;
use super::schedule::rate;
use crate::data::{Batch, Loader, Order};
use crate::torch::{Mark, Stopwatch};
use crate::{Error, Result, torch};

/// Where an epoch tells how it goes.
struct EpochLog<'a> {
    watch: &'a mut dyn Watch,
    seen: Seen,
    epoch: u32,
    batch: pending::Batch,
}

/// Batches that a GPU is ahead of what is told of them.
const AHEAD: usize = 16;

impl Fit<'_> {
    /// Steps over the training data once; the last learning rate, mean loss and accuracy.
    pub(super) fn epoch(
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
        let mut log = EpochLog { watch, seen, epoch, batch };
        let began = Instant::now();
        let mut busy = Stopwatch::default();
        for step in 0..per_epoch {
            let at = before + step;
            log.batch.lr = rate(&self.schedule, self.optimizer.lr(), at, steps, per_epoch);
            let mut sum = Sum::default();
            for loaded in loader.by_ref().take(self.accumulate.max(1)) {
                log.batch.number += 1;
                let (loaded, begin) = (loaded?, Mark::set(device));
                let bad = self.batch(classifier, state, &loaded, &mut sum, &mut log)?;
                self.check(bad, state, epoch)?;
                busy.add(begin, Mark::set(device));
            }
            let begin = Mark::set(device);
            self.step(classifier, state, sum.mean()?, log.batch.lr)?;
            let follows = |ema: &ScaleEma| (at as f64) < ema.until * steps as f64;
            if let Some(follower) = &mut state.context.follower
                && self.scale_ema.as_ref().is_some_and(follows)
            {
                follower.update()?;
            }
            if let Some(average) = &mut state.average {
                average.update(&classifier.program)?;
            }
            busy.add(begin, Mark::set(device));
            let message = format!("{}, loss {:.3}", self.message(epoch), log.seen.figures().0);
            log.watch.progress(at + 1, steps, &message);
        }
        let bad = log.seen.tell()?;
        self.check(bad, state, epoch)?;
        let (loss, top1) = log.seen.figures();
        log.watch.log(idle(device, began.elapsed(), busy.total()));
        Ok((log.batch.lr, loss, top1))
    }

    /// Of dropout, which draws from libtorch's own generator.
    fn draw_from_start(&self, epoch: u32) {
        tch::manual_seed(i64::from_ne_bytes(mixed(self.seed, epoch).to_ne_bytes()));
    }

    /// One step of the optimizer; none where gradients in half precision overflowed.
    fn step(
        &self,
        classifier: &Classifier,
        state: &mut State,
        mut gradients: Vec<Tensor>,
        lr: f64,
    ) -> Result<()> {
        let scaler = &mut state.context.scaler;
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
        match &state.context.scaler {
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
        log: &mut EpochLog,
    ) -> Result<Option<NotFinite>> {
        let labels = Vec::<i64>::try_from(&batch.labels)?;
        let count = labels.len() as i64;
        let labels = torch::sent(&labels, &[count], classifier.program.device())?;
        self.choose_kernels(count)?;
        let given = [&batch.images, &labels];
        let (recording, context) = (&mut state.recording, &mut state.context);
        if log.batch.number == 1
            && let Some(recorded) = recording.begin(self, classifier, context, given)?
        {
            self.draw_from_start(log.epoch);
            log.watch.log(match recorded {
                Ok(()) => "a batch's pass was recorded as a CUDA graph".to_owned(),
                Err(error) => format!(
                    "kernels are launched one by one, not as a CUDA graph: {}",
                    error.message
                ),
            });
        }
        let mut pass = recording.pass(self, classifier, context, given)?;
        if self.accumulate > 1 {
            // The next batch of the step writes to the same memory, where passes are recorded.
            for gradient in pass.gradients.iter_mut().filter(|gradient| gradient.defined()) {
                *gradient = torch::copied(gradient)?;
            }
        }
        sum.add(pass.gradients, count)?;
        log.seen.add(pass.loss_and_hits, count, log.batch)
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

/// A number whose every bit depends on all of both (SplitMix64, <https://doi.org/10.1145/2714064.2660195>): libtorch's generator for the CPU takes the lower 32 bits
/// alone (`mt19937`).
fn mixed(seed: u64, epoch: u32) -> u64 {
    let mut z =
        seed.wrapping_add(u64::from(epoch).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// Each epoch, and each seed, drops other values.
    #[test]
    fn epochs_and_seeds_draw_apart() {
        let drawn: Vec<Vec<f64>> = [(5, 0), (5, 1), (5, 2), (5 | 1 << 40, 1), (6, 1)]
            .into_iter()
            .map(|(seed, epoch)| {
                tch::manual_seed(i64::from_ne_bytes(mixed(seed, epoch).to_ne_bytes()));
                Tensor::rand([8], (Kind::Double, Device::Cpu)).try_into().unwrap()
            })
            .collect();
        for (index, one) in drawn.iter().enumerate() {
            assert!(!drawn[..index].contains(one), "{index}");
        }
        // The first output of the published program from 0.
        assert_eq!(mixed(0, 0), 0xe220_a839_7b1d_cdaf);
    }

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
