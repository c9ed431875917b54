//! Which found box is which expected one.

use super::{Detection, iou};

/// For each found box, best score first, the expected one that it takes: of those of its class that are free the one that it overlaps most,
/// by at least `threshold`. As COCO's evaluation, of equal overlaps the later one. Boxes are in the order of their scores.
pub fn assign(found: &[Detection], expected: &[Detection], threshold: f64) -> Vec<Option<usize>> {
    matched(found, expected, threshold, &|one, other| one.class == other.class)
}

/// The same whatever the classes.
pub fn assign_any(
    found: &[Detection],
    expected: &[Detection],
    threshold: f64,
) -> Vec<Option<usize>> {
    matched(found, expected, threshold, &|_, _| true)
}

fn matched(
    found: &[Detection],
    expected: &[Detection],
    threshold: f64,
    fits: &dyn Fn(&Detection, &Detection) -> bool,
) -> Vec<Option<usize>> {
    let mut taken = vec![false; expected.len()];
    let take = |own: &Detection| {
        let mut best = (threshold, None);
        for (index, other) in expected.iter().enumerate() {
            if taken[index] || !fits(own, other) {
                continue;
            }
            let overlap = f64::from(iou(own, other));
            if overlap >= best.0 {
                best = (overlap, Some(index));
            }
        }
        if let Some(index) = best.1 {
            taken[index] = true;
        }
        best.1
    };
    found.iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(left: f32, class: usize) -> Detection {
        Detection { corners: [left, 0.0, left + 10.0, 10.0], score: 0.5, class }
    }

    #[test]
    fn each_expected_box_is_taken_once_by_the_best_that_overlaps_it_most() {
        let expected = [at(0.0, 0), at(1.0, 0), at(50.0, 1)];
        let found = [at(1.0, 0), at(2.0, 0), at(0.0, 0), at(50.0, 0)];
        assert_eq!(assign(&found, &expected, 0.5), [Some(1), Some(0), None, None]);
        assert_eq!(assign_any(&found, &expected, 0.5), [Some(1), Some(0), None, Some(2)]);
        // 8/12 is below 0.7.
        assert_eq!(assign(&found[1..2], &expected[..1], 0.7), [None]);
    }
}
