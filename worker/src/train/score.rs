//! What a classifier gets right.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::Result;

/// Counts over batches, exact whatever the batch size.
#[derive(Clone, Debug)]
pub struct Score {
    classes: usize,
    probabilities: bool,
    samples: u64,
    loss: f64,
    top1: u64,
    top5: u64,
    not_finite: u64,
    nan: u64,
    counts_confusion: bool,
    /// By label and prediction; samples with a NaN are in no cell.
    confusion: BTreeMap<(usize, usize), u64>,
}

/// The least probability that a loss is computed of: one that was rounded to 0 costs 27.6, not infinitely much.
pub const LEAST: f64 = 1e-12;

/// A [`Score`] as figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Samples counted.
    pub samples: u64,
    /// Mean cross-entropy, natural logarithm.
    pub loss: f64,
    /// Part of samples whose class has the highest logit, 0…1.
    pub top1: f64,
    /// Part of samples whose class is among the five highest logits; with fewer than six classes 1.
    pub top5: f64,
}

impl Score {
    /// No sample yet, of a model with that many outputs.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            probabilities: false,
            samples: 0,
            loss: 0.0,
            top1: 0,
            top5: 0,
            not_finite: 0,
            nan: 0,
            counts_confusion: false,
            confusion: BTreeMap::new(),
        }
    }

    /// The same of a model that gives probabilities in place of logits, as behind a Softmax: the loss of a sample is −ln p of its label, p being
    /// at least [`LEAST`].
    #[must_use]
    pub fn of_probabilities(self, probabilities: bool) -> Self {
        Self { probabilities, ..self }
    }

    /// The same that counts, with `confusion`, which classes are taken for which.
    #[must_use]
    pub fn with_confusion(self, confusion: bool) -> Self {
        Self { counts_confusion: confusion, ..self }
    }

    /// Counts a batch: float `logits` of `[N, classes]`, int64 `labels` of `[N]`, each below `classes`.
    ///
    /// Of equal logits the one of the lower class counts as higher.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<()> {
        let logits = logits.f_to_kind(Kind::Double)?.f_contiguous()?;
        let count = logits.numel();
        let mut values = vec![0.0_f64; count];
        logits.f_copy_data(&mut values, count)?;
        let labels = Vec::<i64>::try_from(labels)?;
        for (row, &label) in values.chunks_exact(self.classes).zip(&labels) {
            self.count(row, label as usize);
        }
        Ok(())
    }

    fn count(&mut self, row: &[f64], label: usize) {
        let own = row[label];
        self.loss += if self.probabilities {
            // `max` would take the bound for a NaN.
            if own < LEAST { -LEAST.ln() } else { -own.ln() }
        } else {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|value| (value - largest).exp()).sum();
            largest + sum.ln() - own
        };
        // Not `>=`, so that a NaN is never right.
        let above = row.iter().enumerate().filter(|&(class, &value)| {
            value > own || (value == own && class < label) || value.is_nan()
        });
        let above = above.count();
        self.top1 += u64::from(above == 0 && !own.is_nan());
        self.top5 += u64::from(above < 5 && !own.is_nan());
        if row.iter().any(|value| value.is_nan()) {
            // Whatever is taken for the largest, it is not what top-1 counts.
            self.nan += 1;
        } else if self.counts_confusion {
            let first =
                |best: usize, class: usize| if row[class] > row[best] { class } else { best };
            *self.confusion.entry((label, (0..row.len()).fold(0, first))).or_default() += 1;
        }
        self.samples += 1;
        self.not_finite += u64::from(row.iter().any(|value| !value.is_finite()));
    }

    /// Samples with a logit that is NaN or infinite: it is never right, and the loss may be NaN.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let samples = self.samples.max(1) as f64;
        Figures {
            samples: self.samples,
            loss: self.loss / samples,
            top1: self.top1 as f64 / samples,
            top5: self.top5 as f64 / samples,
        }
    }

    /// Samples with a logit that is NaN: taken for no class.
    pub fn nan(&self) -> u64 {
        self.nan
    }

    /// Outputs of the model.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many samples of a label (first) were taken for a class (second) where some were, without those that were taken for
    /// [none](Self::nan); empty unless [counted](Self::with_confusion).
    pub fn confusion(&self) -> &BTreeMap<(usize, usize), u64> {
        &self.confusion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_ranks_and_losses_are_counted() {
        let logits = Tensor::from_slice2(&[
            [3.0_f32, 1.0, 0.0, -1.0, 0.5, 0.2, 0.1],
            [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],
        ]);
        let mut score = Score::new(7).with_confusion(true);
        score.add(&logits, &Tensor::from_slice(&[0_i64, 1, 5])).unwrap();
        let figures = score.figures();
        assert_eq!(figures.samples, 3);
        assert_eq!(figures.top1, 1.0 / 3.0);
        assert_eq!(figures.top5, 2.0 / 3.0);
        let expected = logits.cross_entropy_for_logits(&Tensor::from_slice(&[0_i64, 1, 5]));
        assert!((figures.loss - expected.double_value(&[])).abs() < 1e-6);
        let cells = BTreeMap::from([((0, 0), 1), ((1, 0), 1), ((5, 0), 1)]);
        assert_eq!(score.confusion(), &cells);
    }

    #[test]
    fn confusion_is_counted_where_asked_for_and_takes_no_room_for_empty_cells() {
        // All cells of a million classes would take 8 TB.
        let classes = 1_000_000;
        let logits = Tensor::zeros([1, classes as i64], (Kind::Float, tch::Device::Cpu));
        for (counts, cells) in [(false, 0), (true, 1)] {
            let mut score = Score::new(classes).with_confusion(counts);
            score.add(&logits, &Tensor::from_slice(&[7_i64])).unwrap();
            assert_eq!((score.confusion().len(), score.classes()), (cells, classes));
        }
    }

    #[test]
    fn the_loss_of_probabilities_is_that_of_their_logits() {
        let logits = Tensor::from_slice2(&[[3.0_f32, 1.0, 0.0], [0.5, 2.0, -1.0]]);
        let labels = Tensor::from_slice(&[0_i64, 2]);
        let of = |values: &Tensor, probabilities: bool| {
            let mut score = Score::new(3).of_probabilities(probabilities);
            score.add(values, &labels).unwrap();
            score.figures()
        };
        let probabilities = logits.softmax(1, Kind::Double);
        let (expected, found) = (of(&logits, false), of(&probabilities, true));
        assert!((found.loss - expected.loss).abs() < 1e-6, "{found:?} {expected:?}");
        assert_eq!((found.top1, found.top5), (expected.top1, expected.top5));
        // Taken for logits they lie too close together for any loss near 0.
        assert!(of(&probabilities, false).loss > expected.loss / 2.0);
        let rounded = Tensor::from_slice2(&[[1.0_f32, 0.0, 0.0], [1.0, 0.0, 0.0]]);
        assert!((of(&rounded, true).loss + LEAST.ln() / 2.0).abs() < 1e-9);
        assert!(of(&(rounded * f64::NAN), true).loss.is_nan());
    }

    #[test]
    fn a_nan_is_never_right() {
        let mut score = Score::new(2).with_confusion(true);
        score.add(&Tensor::from_slice2(&[[f32::NAN, 1.0]]), &Tensor::from_slice(&[1_i64])).unwrap();
        score.add(&Tensor::from_slice2(&[[f32::NAN, 1.0]]), &Tensor::from_slice(&[0_i64])).unwrap();
        assert_eq!(score.figures().top1, 0.0);
        score.add(&Tensor::from_slice2(&[[0.5_f32, 1.0]]), &Tensor::from_slice(&[1_i64])).unwrap();
        assert_eq!((score.not_finite(), score.figures().samples), (2, 3));
        assert!(score.figures().loss.is_nan());
        // The diagonal is what top-1 counts, and nothing is lost.
        assert_eq!((score.confusion(), score.nan()), (&BTreeMap::from([((1, 1), 1)]), 2));
        score
            .add(&Tensor::from_slice2(&[[f32::INFINITY, 1.0]]), &Tensor::from_slice(&[0_i64]))
            .unwrap();
        assert_eq!((score.confusion()[&(0, 0)], score.nan(), score.not_finite()), (1, 2, 3));
    }
}
