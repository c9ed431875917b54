//! Boxes, their overlap, and the suppression of those that overlap a better one.

use serde::Serialize;

/// A box that a detector found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// Left, top, right, bottom, in the model's pixels.
    pub corners: [f32; 4],
    /// Confidence, 0…1.
    pub score: f32,
    /// Index of the class.
    pub class: usize,
}

fn area([left, top, right, bottom]: [f32; 4]) -> f32 {
    (right - left) * (bottom - top)
}

/// Intersection over union, 0…1, in float32 and in the order of torchvision's `box_iou`; NaN of two boxes without an area.
pub fn iou(a: &Detection, b: &Detection) -> f32 {
    let (one, two) = (a.corners, b.corners);
    let width = (one[2].min(two[2]) - one[0].max(two[0])).max(0.0);
    let height = (one[3].min(two[3]) - one[1].max(two[1])).max(0.0);
    let both = width * height;
    both / (area(one) + area(two) - both)
}

/// Greedy non-maximum suppression: of the boxes in the order of their scores those stay that overlap no better one of their class by more
/// than `threshold`; at most `most` of them. Of equal scores the earlier box counts as better. As torchvision's `batched_nms`.
pub fn suppress(mut boxes: Vec<Detection>, threshold: f64, most: usize) -> Vec<Detection> {
    boxes.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for found in boxes {
        if kept.len() == most {
            break;
        }
        let better = |other: &Detection| {
            other.class == found.class && f64::from(iou(other, &found)) > threshold
        };
        if !kept.iter().any(better) {
            kept.push(found);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(corners: [f32; 4], score: f32, class: usize) -> Detection {
        Detection { corners, score, class }
    }

    #[test]
    fn overlap_is_the_shared_part_of_both() {
        // 10×10 each, shifted by 5: 50 of 150.
        let a = found([0.0, 0.0, 10.0, 10.0], 1.0, 0);
        assert_eq!(iou(&a, &found([5.0, 0.0, 15.0, 10.0], 1.0, 1)), 50.0 / 150.0);
        assert_eq!(iou(&a, &a), 1.0);
        assert_eq!(iou(&a, &found([10.0, 0.0, 20.0, 10.0], 1.0, 0)), 0.0, "they touch");
    }

    #[test]
    fn the_best_box_of_a_class_suppresses_those_beyond_the_threshold() {
        let boxes = vec![
            // IoU with the best: 8/12, then 5/15.
            found([2.0, 0.0, 12.0, 10.0], 0.8, 0),
            found([0.0, 0.0, 10.0, 10.0], 0.9, 0),
            found([5.0, 0.0, 15.0, 10.0], 0.7, 0),
            found([0.0, 0.0, 10.0, 10.0], 0.6, 1),
        ];
        let scores = |threshold, most| {
            let kept = suppress(boxes.clone(), threshold, most);
            kept.iter().map(|found| found.score).collect::<Vec<_>>()
        };
        assert_eq!(scores(0.5, 300), [0.9, 0.7, 0.6], "one that is suppressed suppresses none");
        assert_eq!(scores(0.7, 300), [0.9, 0.8, 0.7, 0.6]);
        assert_eq!(scores(0.3, 300), [0.9, 0.6]);
        assert_eq!(scores(0.5, 2), [0.9, 0.7]);
    }
}
