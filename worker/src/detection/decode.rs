//! Outputs of detectors to boxes.

use qpipe::stages::evaluate::BoxForm;

use super::Detection;
use crate::{Error, Result};

/// Rows of a list of boxes that were suppressed already, at most; a longer output with rows of six is one of anchors.
const LISTED: usize = 1000;

/// The boxes above `confidence` of each image, from an output of extents `shape` = `[N, …, …]` with its `values`, row by row. A box has the
/// class of its highest score; the form is told by the extents where `form` is not given.
///
/// # Errors
/// An output that is of none of the forms, or not of the one given.
pub fn decode(
    form: Option<BoxForm>,
    shape: &[usize],
    values: &[f32],
    confidence: f64,
) -> Result<Vec<Vec<Detection>>> {
    let (&[images, rows, columns], false) = (shape, form == Some(BoxForm::Separate)) else {
        return Err(unknown(shape));
    };
    let form = form.unwrap_or(match (rows, columns) {
        (1..=LISTED, 6) => BoxForm::Boxes,
        (rows, columns) if rows < columns => BoxForm::Yolov8,
        _ => BoxForm::Yolov5,
    });
    let (per_box, read): (usize, Read) = match form {
        BoxForm::Yolov8 => (rows, anchor_free),
        BoxForm::Yolov5 => (columns, anchored),
        // Two outputs are not read here.
        BoxForm::Boxes | BoxForm::Separate => (columns, listed),
    };
    let least = match form {
        BoxForm::Yolov8 => 5,
        BoxForm::Yolov5 | BoxForm::Boxes | BoxForm::Separate => 6,
    };
    let fits = match form {
        BoxForm::Boxes | BoxForm::Separate => per_box == least,
        BoxForm::Yolov8 | BoxForm::Yolov5 => per_box >= least,
    };
    let count = rows * columns;
    if !fits || values.len() != images * count {
        return Err(unknown(shape));
    }
    let count_of = count / per_box;
    let image = |values: &[f32]| {
        let boxes = (0..count_of).filter_map(|index| {
            let at = |field: usize| match form {
                BoxForm::Yolov8 => values[field * columns + index],
                _ => values[index * columns + field],
            };
            // A NaN is never above.
            read(&at, per_box).filter(|found| f64::from(found.score) > confidence)
        });
        boxes.collect()
    };
    Ok(values.chunks_exact(count).map(image).collect())
}

/// A box, from its fields and their count.
type Read = fn(&dyn Fn(usize) -> f32, usize) -> Option<Detection>;

fn unknown(shape: &[usize]) -> Error {
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    Error::user(format!("the output [{}] has no boxes in a known form", extents.join(", "))).help(
        "the first output must be [N, 4 + classes, anchors] (YOLOv8), [N, anchors, 5 + classes] (YOLOv5) or [N, boxes, 6] \
         (corners, score, class), which `detection.form` says; boxes and scores in two outputs are form = \"separate\"",
    )
}

/// YOLOv8: centre, size, a score for each class.
fn anchor_free(at: &dyn Fn(usize) -> f32, fields: usize) -> Option<Detection> {
    let (class, score) = best(at, 4, fields);
    Some(Detection { corners: corners(at), score, class })
}

/// YOLOv5: centre, size, whether there is an object, a score for each class. The confidence is the product.
fn anchored(at: &dyn Fn(usize) -> f32, fields: usize) -> Option<Detection> {
    let (class, score) = best(at, 5, fields);
    Some(Detection { corners: corners(at), score: score * at(4), class })
}

/// Corners, score, class; what a negative class fills up is no box.
fn listed(at: &dyn Fn(usize) -> f32, _: usize) -> Option<Detection> {
    let class = at(5);
    (class >= 0.0).then(|| Detection {
        corners: [at(0), at(1), at(2), at(3)],
        score: at(4),
        class: class as usize,
    })
}

pub(super) fn corners(at: &dyn Fn(usize) -> f32) -> [f32; 4] {
    let (x, y, half_width, half_height) = (at(0), at(1), at(2) / 2.0, at(3) / 2.0);
    [x - half_width, y - half_height, x + half_width, y + half_height]
}

/// The class of the highest score, of equal ones the first.
pub(super) fn best(at: &dyn Fn(usize) -> f32, start: usize, end: usize) -> (usize, f32) {
    let mut best = (0, at(start));
    for field in start + 1..end {
        if at(field) > best.1 {
            best = (field - start, at(field));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_gives_the_same_box() {
        let expected = Detection { corners: [8.0, 16.0, 12.0, 24.0], score: 0.5, class: 1 };
        // Seven anchors of YOLOv8's form with two classes, of which the third has a box.
        let mut free = vec![0.0; 6 * 7];
        for (field, value) in [10.0, 20.0, 4.0, 8.0, 0.25, 0.5].into_iter().enumerate() {
            free[field * 7 + 2] = value;
        }
        let found = decode(None, &[1, 6, 7], &free, 0.25).unwrap();
        assert_eq!(found, [vec![expected]]);
        let mut anchored = vec![0.0; 2 * 9 * 7];
        anchored[9 * 7 + 14..][..7].copy_from_slice(&[10.0, 20.0, 4.0, 8.0, 0.625, 0.25, 0.8]);
        let found = decode(None, &[2, 9, 7], &anchored, 0.25).unwrap();
        assert_eq!(found, [vec![], vec![expected]]);
        let listed = [8.0, 16.0, 12.0, 24.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.9, -1.0];
        assert_eq!(decode(None, &[1, 2, 6], &listed, 0.25).unwrap(), [vec![expected]]);
    }

    #[test]
    fn the_threshold_is_exceeded_and_nan_is_not_found() {
        let score = |score: f32, confidence| {
            let values = [1.0, 1.0, 1.0, 1.0, score, 0.0];
            decode(Some(BoxForm::Boxes), &[1, 1, 6], &values, confidence).unwrap()[0].len()
        };
        assert_eq!((score(0.25, 0.25), score(0.26, 0.25), score(f32::NAN, 0.0)), (0, 1, 0));
    }

    #[test]
    fn other_outputs_are_refused_with_their_extents() {
        for (form, shape) in [
            (None, &[1_usize, 10][..]),
            (None, &[1, 4, 100]),
            (Some(BoxForm::Boxes), &[1, 7, 100]),
            (Some(BoxForm::Yolov5), &[1, 100, 5]),
        ] {
            let values = vec![0.0; shape.iter().product()];
            let error = decode(form, shape, &values, 0.25).unwrap_err();
            assert!(error.message.contains(&format!("{}", shape[1])), "{}", error.message);
        }
    }
}
