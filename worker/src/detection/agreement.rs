//! How far a model finds the boxes of another, which are taken for the truth.

use super::{Detection, Precision, assign, assign_any, suppress};

/// What counts as a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Confidence that a box exceeds.
    pub confidence: f64,
    /// IoU beyond which a better box of the class suppresses it.
    pub nms_iou: f64,
    /// Boxes of an image, at most.
    pub most: usize,
}

/// IoU from which two boxes are the same for precision, recall, overlap and class.
const SAME: f64 = 0.5;

/// Confidence of boxes that average precision ranks, as Ultralytics validates.
const RANKED: f64 = 0.001;

impl Settings {
    /// The confidence from which the evaluated model's boxes are wanted.
    pub fn least_confidence(&self) -> f64 {
        self.confidence.min(RANKED)
    }
}

/// Counts over images.
#[derive(Clone, Debug)]
pub struct Agreement {
    settings: Settings,
    images: u64,
    expected: u64,
    found: u64,
    right: u64,
    matched: u64,
    same_class: u64,
    overlap: f64,
    precision: Precision,
}

/// An [`Agreement`] as figures, all 0…1 but for the counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Images.
    pub images: u64,
    /// Boxes of the reference.
    pub expected: u64,
    /// Boxes of the evaluated model above the confidence.
    pub found: u64,
    /// Share of the found boxes that are expected: of the class, at IoU 0.5; 1 where none was found.
    pub precision: f64,
    /// Share of the expected boxes that were found; 1 where none was expected.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Mean average precision at IoU 0.5.
    pub map50: f64,
    /// Mean of the same at IoU 0.50, 0.55, … 0.95.
    pub map: f64,
    /// Mean IoU of pairs, which overlap by 0.5 and more whatever their classes; `None` without a pair.
    pub mean_iou: Option<f64>,
    /// Share of these pairs whose classes are the same.
    pub class_agreement: Option<f64>,
}

impl Agreement {
    /// No image yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            images: 0,
            expected: 0,
            found: 0,
            right: 0,
            matched: 0,
            same_class: 0,
            overlap: 0.0,
            precision: Precision::default(),
        }
    }

    /// Takes an image's boxes before suppression: the evaluated model's from [`Settings::least_confidence`] on, the reference's above the
    /// confidence. Gives both as they were counted: above the confidence, suppressed.
    pub fn add(
        &mut self,
        found: Vec<Detection>,
        reference: Vec<Detection>,
    ) -> (Vec<Detection>, Vec<Detection>) {
        let Settings { confidence, nms_iou, most } = self.settings;
        let mut found = suppress(found, nms_iou, most);
        let expected = suppress(reference, nms_iou, most);
        self.precision.add(&found, &expected);
        // They are in the order of their scores, and none is suppressed by one that is below it.
        found.retain(|found| f64::from(found.score) > confidence);
        self.images += 1;
        self.expected += expected.len() as u64;
        self.found += found.len() as u64;
        self.right += assign(&found, &expected, SAME).into_iter().flatten().count() as u64;
        for (own, taken) in found.iter().zip(assign_any(&found, &expected, SAME)) {
            let Some(other) = taken.map(|index| &expected[index]) else { continue };
            self.matched += 1;
            self.same_class += u64::from(own.class == other.class);
            self.overlap += f64::from(super::iou(own, other));
        }
        (found, expected)
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let share = |part: u64, of: u64| if of == 0 { 1.0 } else { part as f64 / of as f64 };
        let both = self.found + self.expected;
        let maps = self.precision.mean();
        let pairs = |sum: f64| (self.matched > 0).then(|| sum / self.matched as f64);
        Figures {
            images: self.images,
            expected: self.expected,
            found: self.found,
            precision: share(self.right, self.found),
            recall: share(self.right, self.expected),
            f1: share(2 * self.right, both),
            map50: maps[0],
            map: maps.iter().sum::<f64>() / maps.len() as f64,
            mean_iou: pairs(self.overlap),
            class_agreement: pairs(self.same_class as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { confidence: 0.25, nms_iou: 0.7, most: 300 };

    fn at(left: f32, score: f32, class: usize) -> Detection {
        Detection { corners: [left, 0.0, left + 10.0, 10.0], score, class }
    }

    #[test]
    fn the_model_itself_agrees_in_all() {
        let mut agreement = Agreement::new(SETTINGS);
        let boxes = vec![at(0.0, 0.9, 0), at(50.0, 0.26, 1)];
        let low = [boxes.clone(), vec![at(80.0, 0.2, 0), at(0.5, 0.1, 0)]].concat();
        let (found, expected) = agreement.add(low, boxes.clone());
        assert_eq!((&found, &expected), (&boxes, &boxes));
        let figures = agreement.figures();
        assert_eq!((figures.precision, figures.recall, figures.f1), (1.0, 1.0, 1.0));
        assert_eq!((figures.map50, figures.map), (1.0, 1.0));
        assert_eq!((figures.mean_iou, figures.class_agreement), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn shares_are_of_what_was_found_and_expected() {
        let mut agreement = Agreement::new(SETTINGS);
        // One right and shifted (9/11), one of the wrong class, one that is not there; one below the confidence.
        agreement.add(
            vec![at(1.0, 0.9, 0), at(50.0, 0.8, 1), at(90.0, 0.7, 0), at(130.0, 0.2, 0)],
            vec![at(0.0, 0.9, 0), at(50.0, 0.8, 0), at(130.0, 0.3, 0), at(170.0, 0.3, 0)],
        );
        let figures = agreement.figures();
        assert_eq!((figures.found, figures.expected), (3, 4));
        assert_eq!((figures.precision, figures.recall), (1.0 / 3.0, 0.25));
        assert_eq!(figures.f1, 2.0 / 7.0);
        assert_eq!(figures.class_agreement, Some(0.5));
        let overlap = (f64::from(90.0_f32 / 110.0) + 1.0) / 2.0;
        assert_eq!(figures.mean_iou, Some(overlap));
        // Class 0: right 0.9, wrong 0.7, right 0.2, of four: recall 1/4 at precision 1 (26 points), 1/2 at 2/3 (25 points).
        let expected = (26.0 + 25.0 * (2.0 / 3.0)) / 101.0;
        assert!((figures.map50 - expected).abs() < 1e-12, "{}", figures.map50);
    }

    #[test]
    fn nothing_found_and_nothing_expected() {
        let mut nothing = Agreement::new(SETTINGS);
        nothing.add(Vec::new(), vec![at(0.0, 0.9, 0)]);
        let figures = nothing.figures();
        assert_eq!((figures.precision, figures.recall, figures.f1), (1.0, 0.0, 0.0));
        assert_eq!((figures.map50, figures.mean_iou), (0.0, None));
    }
}
