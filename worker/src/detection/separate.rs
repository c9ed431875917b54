//! Detectors that give boxes and scores apart, as RT-DETR and YOLO-NAS are exported.

use qpipe::stages::evaluate::{Coordinates, Detection as Wanted};

use super::Detection;
use super::decode::{best, corners};
use crate::{Error, Result};

/// An output of a model: its extents `[N, …]` and its values, row by row.
pub type Output = (Vec<usize>, Vec<f32>);

/// The boxes above `confidence` of each image, from the outputs boxes `[N, anchors, 4]` and scores `[N, anchors, classes]`, in either order: of two
/// that end in 4 the first has the boxes. `image` are the extents `[H, W]` of the model's images. A box has the class of its highest score.
///
/// # Errors
/// Outputs that are not two such.
pub fn decode_separate(
    outputs: &[Output],
    wanted: &Wanted,
    image: [usize; 2],
    confidence: f64,
) -> Result<Vec<Vec<Detection>>> {
    let shapes: Vec<&[usize]> = outputs.iter().map(|(shape, _)| &shape[..]).collect();
    check_separate(&shapes)?;
    let [one, other] = outputs else { return Err(not_two(&shapes)) };
    let (boxes, scores) = if one.0.last() == Some(&4) { (one, other) } else { (other, one) };
    let (&[images, anchors, 4], &[_, _, classes]) = (&boxes.0[..], &scores.0[..]) else {
        return Err(not_two(&shapes));
    };
    if boxes.1.len() != images * anchors * 4 || scores.1.len() != images * anchors * classes {
        return Err(not_two(&shapes));
    }
    let [height, width] = image.map(|extent| extent as f32);
    let scale = if wanted.normalized { [width, height, width, height] } else { [1.0; 4] };
    let found = |(boxes, scores): (&[f32], &[f32])| {
        let score = |field: usize| scores[field];
        let (class, score) = best(&score, 0, classes);
        let score = if wanted.logits { 1.0 / (1.0 + (-score).exp()) } else { score };
        // A NaN is never above.
        (f64::from(score) > confidence).then(|| {
            let at = |field: usize| boxes[field] * scale[field];
            let corners = match wanted.boxes {
                Some(Coordinates::Cxcywh) => corners(&at),
                Some(Coordinates::Xyxy) | None => [at(0), at(1), at(2), at(3)],
            };
            Detection { corners, score, class }
        })
    };
    let of_image = |(boxes, scores): (&[f32], &[f32])| {
        boxes.chunks_exact(4).zip(scores.chunks_exact(classes)).filter_map(found).collect()
    };
    let boxes = boxes.1.chunks_exact(anchors * 4);
    Ok(boxes.zip(scores.1.chunks_exact(anchors * classes)).map(of_image).collect())
}

/// Refuses outputs that are not boxes and scores of the same images and anchors.
///
/// # Errors
/// What they are, and what was expected.
pub fn check_separate(shapes: &[&[usize]]) -> Result<()> {
    let fits = match shapes {
        &[&[images, anchors, one], &[other, rows, two]] => {
            (images, anchors) == (other, rows)
                && anchors > 0
                && (one == 4 || two == 4)
                && one.min(two) > 0
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(not_two(shapes)) }
}

fn not_two(shapes: &[&[usize]]) -> Error {
    Error::user(format!(
        "`detection.form` is \"separate\": expected two outputs, boxes [N, anchors, 4] and scores [N, anchors, classes], found {}",
        extents(shapes)
    ))
    .key("detection")
    .help(if suppresses(shapes) { INSIDE } else { "leave `form` out for a model with one output" })
}

/// Extents as text: `[1, 300, 4] and [1, 300, 80]`.
pub(super) fn extents(shapes: &[&[usize]]) -> String {
    let text: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
    match text.len() {
        0 => "no output".to_owned(),
        _ => text.join(" and "),
    }
}

/// What to do with a model that suppresses boxes itself and gives them in several outputs.
const INSIDE: &str = "the model seems to suppress boxes itself (num_dets, det_boxes, det_scores, det_classes, as EfficientNMS gives them): export it without NMS, \
     Ultralytics' nms=False, YOLOv7's export without --end2end; or join boxes, scores and classes in one output [N, boxes, 6], \
     which is form \"boxes\"";

/// Whether these are the outputs of a suppression inside the model: a count of boxes for each image among three or more.
fn suppresses(shapes: &[&[usize]]) -> bool {
    let count = |shape: &&[usize]| matches!(shape, [_] | [_, 1]);
    let boxes = |shape: &&[usize]| matches!(shape, [_, _, 4] | [_, 4]);
    shapes.len() >= 3 && shapes.iter().any(boxes) && (shapes.len() == 3 || shapes.iter().any(count))
}

/// Refuses outputs that a form of one output cannot mean, with what to write instead.
///
/// # Errors
/// Boxes and scores apart, and boxes that the model suppressed itself.
pub fn check_single(shapes: &[&[usize]]) -> Result<()> {
    if suppresses(shapes) {
        let found = extents(shapes);
        return Err(Error::user(format!("the outputs {found} have no boxes in a known form"))
            .key("detection")
            .help(INSIDE));
    }
    let (&[&[_, one, a], &[_, other, b]], true) = (shapes, shapes.len() == 2) else {
        return Ok(());
    };
    if one != other || (a != 4 && b != 4) {
        return Ok(());
    }
    Err(Error::user(format!(
        "the model gives boxes and scores apart, {}: how boxes are written is not seen from that",
        extents(shapes)
    ))
    .key("detection")
    .help(
        "write detection = { form = \"separate\", boxes = \"xyxy\" } for corners, \"cxcywh\" for centre and size; add normalized = true where they are 0…1 of \
         the image, logits = true where scores are not yet 0…1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(boxes: Coordinates, normalized: bool, logits: bool) -> Wanted {
        Wanted { boxes: Some(boxes), normalized, logits, ..Wanted::default() }
    }

    #[test]
    fn boxes_are_the_same_in_any_writing() {
        let expected = Detection { corners: [8.0, 16.0, 12.0, 24.0], score: 0.5, class: 1 };
        let scores = (vec![1, 2, 3], vec![0.1, 0.2, 0.0, 0.25, 0.5, 0.125]);
        let decode = |boxes: [f32; 4], wanted: &Wanted, turned: bool| {
            let mut values = vec![0.0; 4];
            values.extend(boxes);
            let mut outputs = vec![(vec![1, 2, 4], values), scores.clone()];
            if turned {
                outputs.reverse();
            }
            decode_separate(&outputs, wanted, [64, 32], 0.25).unwrap()
        };
        for turned in [false, true] {
            let corners = wanted(Coordinates::Xyxy, false, false);
            assert_eq!(decode([8.0, 16.0, 12.0, 24.0], &corners, turned), [vec![expected]]);
            let centre = wanted(Coordinates::Cxcywh, false, false);
            assert_eq!(decode([10.0, 20.0, 4.0, 8.0], &centre, turned), [vec![expected]]);
            // Of 32 columns and 64 rows.
            let centre = wanted(Coordinates::Cxcywh, true, false);
            let boxes = [10.0 / 32.0, 20.0 / 64.0, 4.0 / 32.0, 8.0 / 64.0];
            assert_eq!(decode(boxes, &centre, turned), [vec![expected]]);
        }
    }

    #[test]
    fn logits_become_confidences() {
        let outputs = [(vec![1, 1, 4], vec![1.0; 4]), (vec![1, 1, 2], vec![-1.0, 0.0])];
        let logits = wanted(Coordinates::Xyxy, false, true);
        let found = decode_separate(&outputs, &logits, [8, 8], 0.25).unwrap();
        assert_eq!((found[0][0].score, found[0][0].class), (0.5, 1));
        let nan = [(vec![1, 1, 4], vec![1.0; 4]), (vec![1, 1, 1], vec![f32::NAN])];
        assert!(decode_separate(&nan, &logits, [8, 8], 0.0).unwrap()[0].is_empty());
    }

    #[test]
    fn other_outputs_are_refused_with_what_to_do() {
        let of = |shapes: &[&[usize]]| {
            let output = |shape: &&[usize]| (shape.to_vec(), vec![0.0; shape.iter().product()]);
            let outputs: Vec<Output> = shapes.iter().map(output).collect();
            decode_separate(&outputs, &wanted(Coordinates::Xyxy, false, false), [8, 8], 0.25)
                .unwrap_err()
        };
        let error = of(&[&[1, 84, 100]]);
        assert!(error.message.contains("found [1, 84, 100]"), "{error}");
        assert!(
            of(&[&[1, 300, 4], &[1, 200, 80]]).message.contains("[1, 300, 4] and [1, 200, 80]")
        );
        let inside: &[&[usize]] = &[&[1, 1], &[1, 100, 4], &[1, 100], &[1, 100]];
        assert!(of(inside).help.unwrap().contains("export it without NMS"));
        assert!(check_single(inside).unwrap_err().help.unwrap().contains("export it without NMS"));
    }

    #[test]
    fn a_form_is_asked_for_where_boxes_and_scores_are_apart() {
        let error = check_single(&[&[2, 300, 80], &[2, 300, 4]]).unwrap_err();
        assert!(error.help.unwrap().contains("form = \"separate\""));
        // Masks beside the boxes of a segmentation, feature maps beside those of YOLOv5.
        check_single(&[&[1, 116, 8400], &[1, 32, 160, 160]]).unwrap();
        check_single(&[&[1, 25200, 85], &[1, 3, 80, 80, 85], &[1, 3, 40, 40, 85]]).unwrap();
        check_single(&[&[1, 84, 8400]]).unwrap();
    }
}
