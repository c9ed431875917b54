//! Suppression and agreement of boxes against torchvision and COCO's average precision in NumPy: the same figures, to the last digit.

use qpipe_worker::detection::{Agreement, Settings, decode};
use tch::{Kind, Tensor};

use crate::{parity, python};

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.contiguous().flatten(0, -1)).unwrap()
}

#[test]
fn agreement_of_boxes_is_that_of_torchvision_and_coco() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boxes.npz");
    assert!(python::torch("boxes.py").arg(&file).status().unwrap().success());
    let arrays = parity::arrays(&file);
    let settings = Settings { confidence: 0.25, nms_iou: 0.7, most: 300 };
    for case in 0..4 {
        let boxes = |name: &str, confidence| {
            let output = &arrays[&format!("{name}_{case}")];
            let shape: Vec<usize> = output.size().iter().map(|extent| *extent as usize).collect();
            decode(None, &shape, &floats(output), confidence).unwrap()
        };
        let found = boxes("found", settings.least_confidence());
        let reference = boxes("reference", settings.confidence);
        let mut agreement = Agreement::new(settings);
        let mut kept = Vec::new();
        for (image, (found, reference)) in found.into_iter().zip(reference).enumerate() {
            for own in agreement.add(found, reference).0 {
                kept.push(image as f32);
                kept.extend(own.corners);
                kept.extend([own.score, own.class as f32]);
            }
        }
        let expected = floats(&arrays[&format!("kept_{case}")]);
        for (row, (found, expected)) in kept.chunks(7).zip(expected.chunks(7)).enumerate() {
            assert_eq!(found, expected, "case {case}, box {row}");
        }
        assert_eq!(kept.len(), expected.len(), "case {case}");
        let figures = agreement.figures();
        let found = [
            figures.precision,
            figures.recall,
            figures.f1,
            figures.map50,
            figures.map,
            figures.mean_iou.unwrap(),
            figures.class_agreement.unwrap(),
        ];
        let expected = arrays[&format!("figures_{case}")].to_kind(Kind::Double);
        assert_eq!(found.to_vec(), Vec::<f64>::try_from(expected).unwrap(), "case {case}");
        assert_eq!(case == 0, figures.map == 1.0, "without noise all agree, with noise not all");
    }
}
