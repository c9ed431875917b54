//! Losses and hits of an epoch's batches. On a GPU they are asked for a few steps at a time: each question waits for all that was
//! begun before it.

use tch::Tensor;

use crate::Result;

/// Sums over the samples of an epoch.
pub(super) struct Seen {
    /// Sum of the losses that are finite, each times its count of samples.
    loss: f64,
    right: f64,
    samples: i64,
    /// Samples whose loss is in the sum.
    finite: i64,
    waiting: Vec<Waiting>,
    /// Batches at most that wait.
    most: usize,
}

struct Waiting {
    /// Loss and hits, two doubles where they were computed.
    told: Tensor,
    samples: i64,
    batch: Batch,
}

/// Which batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Batch {
    /// Counted from 1.
    pub number: usize,
    /// Learning rate of its step.
    pub lr: f64,
}

/// A loss that is not finite.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotFinite {
    pub loss: f64,
    pub batch: Batch,
}

impl Seen {
    /// Nothing yet; up to `most` batches wait.
    pub fn new(most: usize) -> Self {
        Self { loss: 0.0, right: 0.0, samples: 0, finite: 0, waiting: Vec::new(), most }
    }

    /// Takes up a batch of `samples`: its mean loss and count of hits, two doubles. Gives the first loss that is not finite, of those that
    /// are known now.
    pub fn add(&mut self, told: Tensor, samples: i64, batch: Batch) -> Result<Option<NotFinite>> {
        self.waiting.push(Waiting { told, samples, batch });
        if self.waiting.len() >= self.most { self.tell() } else { Ok(None) }
    }

    /// Waits for all batches so far. Gives the first loss that is not finite, of those that were not known before.
    pub fn tell(&mut self) -> Result<Option<NotFinite>> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(None);
        }
        let told: Vec<&Tensor> = waiting.iter().map(|batch| &batch.told).collect();
        let told = Vec::<f64>::try_from(Tensor::f_cat(&told, 0)?.f_to_device(tch::Device::Cpu)?)?;
        let mut first = None;
        for (numbers, batch) in told.chunks(2).zip(waiting) {
            let (loss, hits) = (numbers[0], numbers[1]);
            self.right += hits;
            self.samples += batch.samples;
            if loss.is_finite() {
                self.loss += loss * batch.samples as f64;
                self.finite += batch.samples;
            } else {
                first.get_or_insert(NotFinite { loss, batch: batch.batch });
            }
        }
        Ok(first)
    }

    /// Mean loss and part of right answers, of the batches that are known.
    pub fn figures(&self) -> (f64, f64) {
        (self.loss / self.finite.max(1) as f64, self.right / self.samples.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_wait_and_none_is_lost() {
        let mut seen = Seen::new(2);
        let told = |loss: f64, hits: f64| Tensor::from_slice(&[loss, hits]);
        let mut add = |loss: f64, hits: f64, samples: i64, number: usize| {
            let batch = Batch { number, lr: 0.1 };
            let bad = seen.add(told(loss, hits), samples, batch).unwrap();
            (bad.map(|bad| bad.batch.number), seen.figures())
        };
        assert_eq!(add(1.0, 1.0, 2, 1), (None, (0.0, 0.0)));
        assert_eq!(add(4.0, 0.0, 1, 2), (None, (2.0, 1.0 / 3.0)));
        assert_eq!(add(f64::NAN, 1.0, 1, 3).0, None);
        assert_eq!(add(2.0, 4.0, 4, 4), (Some(3), (2.0, 6.0 / 8.0)));
        let last = Batch { number: 5, lr: 0.1 };
        assert!(seen.add(told(6.0, 0.0), 7, last).unwrap().is_none());
        assert!(seen.tell().unwrap().is_none());
        assert_eq!(seen.figures(), (4.0, 6.0 / 15.0));
    }
}
