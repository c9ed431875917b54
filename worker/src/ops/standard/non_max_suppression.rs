//! `NonMaxSuppression`: of boxes that overlap, those with the best score.
//! <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>
//!
//! Opsets: 10, 11. Boxes `[N, count, 4]`, scores `[N, classes, count]`; the result is `[selected, 3]`: batch,
//! class, box. Computed on the CPU, in float32. Of equal scores the box of the lower index is first.

use tch::Tensor;

use crate::ops::kernel::{Arguments, Op, floats, single};
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("NonMaxSuppression", &[10, 11], |prepare| {
    let centred = match prepare.node.int("center_point_box", 0)? {
        0 => false,
        1 => true,
        other => return Err(Error::user(format!("`center_point_box` = {other} is not defined"))),
    };
    single(move |a| {
        let scores = a.get(1)?;
        let (selected, device) = (run(a, centred)?, scores.device());
        let rows = (selected.len() / 3) as i64;
        Ok(Tensor::f_from_slice(&selected)?.f_reshape([rows, 3])?.f_to_device(device)?)
    })
})
.without_gradient()
.shapes(rules::non_max_suppression);

fn run(a: &Arguments, centred: bool) -> Result<Vec<i64>> {
    let (boxes, scores) = (floats(a.get(0)?)?, floats(a.get(1)?)?);
    let (box_size, size) = (a.get(0)?.size(), a.get(1)?.size());
    let (&[batches, count, 4], &[score_batches, classes, score_count]) = (&box_size[..], &size[..])
    else {
        return Err(Error::user(format!(
            "boxes of shape {box_size:?} and scores of shape {size:?}, expected [N, count, 4] and \
             [N, classes, count]"
        )));
    };
    if (batches, count) != (score_batches, score_count) {
        return Err(Error::user(format!(
            "boxes of shape {box_size:?} do not fit scores of shape {size:?}"
        )));
    }
    let most = a.ints(2)?.and_then(|most| most.first().copied()).unwrap_or(0);
    let most = usize::try_from(most).unwrap_or(0);
    let number = |index| Ok::<_, Error>(a.floats(index)?.and_then(|v| v.first().copied()));
    let overlap = number(3)?.unwrap_or(0.0);
    let least = number(4)?;
    let count = count as usize;
    let boxes: Vec<Corners> = boxes.chunks_exact(4).map(|row| Corners::of(row, centred)).collect();
    let mut selected = Vec::new();
    for batch in 0..batches as usize {
        let boxes = &boxes[batch * count..][..count];
        for class in 0..classes as usize {
            let row = batch * classes as usize + class;
            let scores = &scores[row * count..][..count];
            for index in suppress(boxes, scores, most, overlap, least) {
                selected.extend([batch as i64, class as i64, index as i64]);
            }
        }
    }
    Ok(selected)
}

/// Indices of the boxes of one class that are left, best first: at most `most`, with scores above `least`,
/// of which no two overlap by more than `overlap`.
fn suppress(
    boxes: &[Corners],
    scores: &[f32],
    most: usize,
    overlap: f32,
    least: Option<f32>,
) -> Vec<usize> {
    let mut candidates: Vec<usize> =
        (0..boxes.len()).filter(|&index| least.is_none_or(|least| scores[index] > least)).collect();
    // Adding zero makes the two zeros one.
    candidates.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
    let mut kept: Vec<usize> = Vec::new();
    for index in candidates {
        if kept.len() >= most {
            break;
        }
        if kept.iter().all(|&better| boxes[index].overlap(&boxes[better]) <= overlap) {
            kept.push(index);
        }
    }
    kept
}

/// A box by its corners.
struct Corners {
    x: (f32, f32),
    y: (f32, f32),
}

impl Corners {
    /// From `[y1, x1, y2, x2]`, any two opposite corners, or `[x, y, width, height]` of the centre.
    fn of(row: &[f32], centred: bool) -> Self {
        let &[a, b, c, d] = row else { return Self { x: (0.0, 0.0), y: (0.0, 0.0) } };
        if centred {
            let (width, height) = (c / 2.0, d / 2.0);
            Self { x: (a - width, a + width), y: (b - height, b + height) }
        } else {
            Self { x: (b.min(d), b.max(d)), y: (a.min(c), a.max(c)) }
        }
    }

    fn area(&self) -> f32 {
        (self.x.1 - self.x.0) * (self.y.1 - self.y.0)
    }

    /// Intersection over union; 0 where a box is empty.
    fn overlap(&self, other: &Self) -> f32 {
        let width = self.x.1.min(other.x.1) - self.x.0.max(other.x.0);
        let height = self.y.1.min(other.y.1) - self.y.0.max(other.y.0);
        // Written so that a box of NaNs overlaps nothing.
        if !(width > 0.0 && height > 0.0) {
            return 0.0;
        }
        let intersection = width * height;
        let (area, other_area) = (self.area(), other.area());
        let union = area + other_area - intersection;
        if area > 0.0 && other_area > 0.0 && union > 0.0 { intersection / union } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_scores_the_lower_index_is_first() {
        let apart = |at: f32| Corners { x: (at, at + 1.0), y: (0.0, 1.0) };
        let boxes = [apart(0.0), apart(2.0), apart(4.0), apart(4.1)];
        assert_eq!(suppress(&boxes, &[0.5, 0.9, 0.5, 0.5], 9, 0.5, None), [1, 0, 2]);
        assert_eq!(suppress(&boxes, &[0.5, 0.9, 0.5, 0.5], 2, 0.5, None), [1, 0]);
        assert_eq!(suppress(&boxes, &[0.5, 0.9, 0.5, 0.6], 9, 0.5, Some(0.5)), [1, 3]);
    }
}
