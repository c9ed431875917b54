//! Average precision as COCO has it: 101 points of recall, ten thresholds of overlap.
//!
//! <https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py>, all areas.

use std::collections::BTreeMap;

use super::{Detection, assign};

/// IoU from which a box is the expected one: 0.50, 0.55, … 0.95.
pub const THRESHOLDS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// Points of recall: 0.00, 0.01, … 1.00.
const POINTS: u32 = 100;

/// Sums over images.
#[derive(Clone, Debug, Default)]
pub struct Precision {
    classes: BTreeMap<usize, Class>,
}

#[derive(Clone, Debug, Default)]
struct Class {
    expected: u64,
    /// Score of each found box, and for each threshold whether it is an expected one.
    found: Vec<(f32, [bool; THRESHOLDS.len()])>,
}

impl Precision {
    /// Takes an image's boxes, each in the order of their scores.
    pub fn add(&mut self, found: &[Detection], expected: &[Detection]) {
        for other in expected {
            self.classes.entry(other.class).or_default().expected += 1;
        }
        let mut right = vec![[false; THRESHOLDS.len()]; found.len()];
        for (column, threshold) in THRESHOLDS.into_iter().enumerate() {
            for (right, taken) in right.iter_mut().zip(assign(found, expected, threshold)) {
                right[column] = taken.is_some();
            }
        }
        for (own, right) in found.iter().zip(right) {
            self.classes.entry(own.class).or_default().found.push((own.score, right));
        }
    }

    /// Mean over the classes that were expected of the average precision at each threshold, 0…1; 0 without any.
    pub fn mean(&self) -> [f64; THRESHOLDS.len()] {
        let classes: Vec<&Class> =
            self.classes.values().filter(|class| class.expected > 0).collect();
        let mut means = [0.0; THRESHOLDS.len()];
        for (column, mean) in means.iter_mut().enumerate() {
            let sum: f64 = classes.iter().map(|class| class.average(column)).sum();
            *mean = if classes.is_empty() { 0.0 } else { sum / classes.len() as f64 };
        }
        means
    }
}

impl Class {
    fn average(&self, column: usize) -> f64 {
        let mut order: Vec<&(f32, [bool; THRESHOLDS.len()])> = self.found.iter().collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut right = 0_u64;
        let mut curve: Vec<(f64, f64)> = Vec::with_capacity(order.len());
        for (index, (_, is_right)) in order.into_iter().enumerate() {
            right += u64::from(is_right[column]);
            let recall = right as f64 / self.expected as f64;
            curve.push((recall, right as f64 / (index + 1) as f64));
        }
        // The highest precision at this recall or a higher one.
        let mut highest = 0.0_f64;
        for (_, precision) in curve.iter_mut().rev() {
            highest = highest.max(*precision);
            *precision = highest;
        }
        let at = |point: u32| {
            let recall = f64::from(point) / f64::from(POINTS);
            let index = curve.partition_point(|(found, _)| *found < recall);
            curve.get(index).map_or(0.0, |(_, precision)| *precision)
        };
        (0..=POINTS).map(at).sum::<f64>() / f64::from(POINTS + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(left: f32, score: f32, class: usize) -> Detection {
        Detection { corners: [left, 0.0, left + 10.0, 10.0], score, class }
    }

    #[test]
    fn the_same_boxes_have_an_average_precision_of_1() {
        let boxes = [at(0.0, 0.9, 0), at(30.0, 0.8, 1), at(60.0, 0.3, 0)];
        let mut precision = Precision::default();
        precision.add(&boxes, &boxes);
        // What is found besides, with lower scores, costs nothing.
        let more = [at(0.0, 0.9, 0), at(90.0, 0.1, 0)];
        precision.add(&more, &boxes[..1]);
        assert_eq!(precision.mean(), [1.0; 10]);
    }

    #[test]
    fn a_false_box_in_front_and_one_that_is_missing() {
        // Wrong, right, right of three expected: recall 0, 1/3, 2/3 at precision 0, 1/2, 2/3; the envelope is 2/3 up to recall 2/3,
        // which are the points 0.00 … 0.66.
        let mut precision = Precision::default();
        let found = [at(200.0, 0.9, 0), at(0.0, 0.8, 0), at(30.0, 0.7, 0)];
        precision.add(&found, &[at(0.0, 1.0, 0), at(30.0, 1.0, 0), at(60.0, 1.0, 0)]);
        let expected = 67.0 * (2.0 / 3.0) / 101.0;
        precision.mean().iter().for_each(|mean| assert!((mean - expected).abs() < 1e-12));
        // A class that is nowhere expected counts for nothing, one that is not found for 0.
        precision.add(&[at(0.0, 0.9, 7)], &[at(0.0, 0.9, 1)]);
        assert!((precision.mean()[0] - expected / 2.0).abs() < 1e-12);
    }

    #[test]
    fn shifted_boxes_are_right_up_to_their_overlap() {
        // 9 of 11 = 0.818.
        let mut precision = Precision::default();
        precision.add(&[at(1.0, 0.9, 0)], &[at(0.0, 0.9, 0)]);
        assert_eq!(precision.mean(), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(Precision::default().mean(), [0.0; 10]);
    }
}
