//! What a training tells of its epochs, and what it decides by them.

use qpipe::stages::training::{BestBy, EarlyStop};
use serde::{Deserialize, Serialize};

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1; 0 is the model as it came.
    pub epoch: u32,
    /// Learning rate of its last step; none for epoch 0.
    pub lr: Option<f64>,
    /// Mean loss over the steps, label smoothing and distillation included; none for epoch 0.
    pub train_loss: Option<f64>,
    /// Accuracy over the steps, before each, 0…1; none for epoch 0.
    pub train_top1: Option<f64>,
    /// Mean loss on the validation data; NaN, which JSON has as `null`, where it is not finite.
    #[serde(deserialize_with = "number_or_nan")]
    pub valid_loss: f64,
    /// Accuracy on the validation data, 0…1.
    pub valid_top1: f64,
}

impl Epoch {
    /// The line of the log.
    pub(super) fn line(&self, epochs: u32) -> String {
        let mut line = format!("epoch {}/{epochs}: ", self.epoch);
        if let (Some(loss), Some(top1)) = (self.train_loss, self.train_top1) {
            line += &format!("train loss {loss:.4}, top-1 {:.2} %; ", 100.0 * top1);
        }
        line +=
            &format!("valid loss {:.4}, top-1 {:.2} %", self.valid_loss, 100.0 * self.valid_top1);
        if let Some(lr) = self.lr {
            line += &format!("; learning rate {lr:.3e}");
        }
        line
    }
}

fn number_or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Position of the best epoch, of equals the first. A loss that is no number is worse than any.
pub(super) fn best(history: &[Epoch], by: BestBy) -> usize {
    let better = |best: usize, index: usize| {
        let (a, b) = (&history[index], &history[best]);
        let loss = |epoch: &Epoch| {
            if epoch.valid_loss.is_nan() { f64::INFINITY } else { epoch.valid_loss }
        };
        let is_lower = loss(a) < loss(b);
        let wins = match by {
            BestBy::Top1 => {
                a.valid_top1 > b.valid_top1 || (a.valid_top1 == b.valid_top1 && is_lower)
            }
            BestBy::Loss => is_lower,
        };
        if wins { index } else { best }
    };
    (0..history.len()).fold(0, better)
}

/// Whether the last epochs were no better, as many as the patience is. It follows from the history alone, so that a training
/// that goes on stops where it would have.
pub(super) fn stops(history: &[Epoch], rule: &EarlyStop, by: BestBy) -> bool {
    let (mut best, mut waited) = (f64::NEG_INFINITY, 0);
    for epoch in history {
        let score = match by {
            BestBy::Top1 => epoch.valid_top1,
            BestBy::Loss => -epoch.valid_loss,
        };
        if score > best + rule.min_delta {
            (best, waited) = (score, 0);
        } else {
            waited += 1;
        }
    }
    waited >= rule.patience
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(accuracies: &[f64]) -> Vec<Epoch> {
        let epochs = accuracies.iter().zip(1..);
        let epoch = |(&valid_top1, epoch)| Epoch {
            epoch,
            lr: Some(0.025),
            train_loss: Some(1.5),
            train_top1: Some(0.25),
            valid_loss: 2.0,
            valid_top1,
        };
        epochs.map(epoch).collect()
    }

    /// Written to a checkpoint and read back; what is no number never is the best.
    #[test]
    fn a_loss_that_is_not_finite_is_kept_and_is_the_worst() {
        let mut history = history(&[0.1, 0.5, 0.5]);
        history[0].valid_loss = f64::NAN;
        history[1].valid_loss = f64::INFINITY;
        let text = serde_json::to_string(&history).unwrap();
        let read: Vec<Epoch> = serde_json::from_str(&text).unwrap();
        assert!(read[0].valid_loss.is_nan() && read[1].valid_loss.is_nan());
        assert_eq!((read[2].valid_loss, read[2].epoch), (2.0, 3));
        assert_eq!((best(&read, BestBy::Loss), best(&read, BestBy::Top1)), (2, 2));
        assert_eq!(best(&read[..2], BestBy::Loss), 0);
    }

    #[test]
    fn patience_runs_out_without_a_gain() {
        let stops = |accuracies: &[f64], patience, min_delta| {
            stops(&history(accuracies), &EarlyStop { patience, min_delta }, BestBy::Top1)
        };
        assert!(!stops(&[0.5, 0.6, 0.6], 2, 0.0));
        assert!(stops(&[0.5, 0.6, 0.6, 0.55], 2, 0.0));
        assert!(!stops(&[0.5, 0.6, 0.6, 0.61], 2, 0.0));
        // A gain that is too small is none.
        assert!(stops(&[0.5, 0.6, 0.6, 0.61], 2, 0.02));
        // Small gains add up.
        assert!(!stops(&[0.5, 0.515, 0.53], 2, 0.02));
    }

    #[test]
    fn the_best_is_by_accuracy_or_by_loss() {
        let mut epochs = history(&[0.5, 0.6, 0.6, 0.55]);
        for (epoch, loss) in epochs.iter_mut().zip([2.0, 1.9, 1.8, 1.7]) {
            epoch.valid_loss = loss;
        }
        assert_eq!([BestBy::Top1, BestBy::Loss].map(|by| best(&epochs, by)), [2, 3]);
        assert_eq!(best(&history(&[0.5, 0.6, 0.6]), BestBy::Loss), 0, "of equals the first");
        let rule = EarlyStop { patience: 2, min_delta: 0.05 };
        assert!(stops(&epochs, &rule, BestBy::Top1) && !stops(&epochs, &rule, BestBy::Loss));
    }

    #[test]
    fn the_line_of_an_epoch_has_the_figures_of_the_study() {
        assert_eq!(
            history(&[0.5])[0].line(3),
            "epoch 1/3: train loss 1.5000, top-1 25.00 %; valid loss 2.0000, top-1 50.00 %; learning rate 2.500e-2"
        );
    }
}
