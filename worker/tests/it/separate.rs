//! Detectors that give boxes and scores in two outputs, against the same ones with one output: identical figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qpipe::stages::build_engine::Backend;
use qpipe::stages::contract::Metrics;
use qpipe::task::{PROTOCOL, Task};
use qpipe_worker::engine::{self, Build};
use qpipe_worker::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::stages::{Context, Events, RUNS};
use qpipe_worker::{Error, onnx};
use serde_json::{Value, json};

use crate::quant::dataset;

const SIDE: i64 = 32;
const CLASSES: i64 = 3;
/// One convolution with a stride of 4.
const ANCHORS: i64 = 64;

/// What a model's outputs are.
#[derive(Clone, Copy, PartialEq)]
enum Outputs {
    /// `[N, 4 + classes, anchors]`: centre and size in pixels.
    One,
    /// Centre and size in pixels, and confidences.
    Centres,
    /// Logits, and corners of 0…1.
    Corners,
    /// With a count of boxes, as behind a suppression.
    Suppressed,
}

/// A detector of one convolution; `off` is added to its weights.
fn detector(off: f32, outputs: Outputs) -> Model {
    let mut graph = Graph::default();
    let batch = Dim::Named("batch".to_owned());
    let extents = |behind: &[i64]| -> Vec<Dim> {
        let behind = behind.iter().map(|extent| Dim::Fixed(*extent));
        std::iter::once(batch.clone()).chain(behind).collect()
    };
    graph.inputs = vec![ValueInfo::f32("x", extents(&[1, SIDE, SIDE]))];
    let (channels, mut state) = (4 + CLASSES, 5_u32);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut weight: Vec<f32> = (0..channels * 16).map(|_| 0.6 * next()).collect();
    weight.iter_mut().step_by(3).for_each(|weight| *weight += off);
    let bias: Vec<f32> = (0..channels).map(|_| next()).collect();
    let mut constant = |name: &str, data| graph.initializers.insert(name.to_owned(), data);
    constant("w", TensorData::f32(&[channels, 1, 4, 4], &weight));
    constant("b", TensorData::f32(&[channels], &bias));
    constant("side", TensorData::f32(&[], &[SIDE as f32]));
    constant("half", TensorData::f32(&[], &[2.0]));
    constant("flat", TensorData::i64(&[3], &[0, channels, ANCHORS]));
    for (name, index) in [("from", 0), ("two", 2), ("four", 4), ("all", channels), ("axis", 1)] {
        constant(name, TensorData::i64(&[1], &[index]));
    }
    let mut node = |op: &str, inputs: &[&str], output: &str| {
        graph.nodes.push(Node::new(&format!("make {output}"), op, inputs, &[output]));
        graph.nodes.len() - 1
    };
    let conv = node("Conv", &["x", "w", "b"], "raw");
    node("Reshape", &["raw", "flat"], "flat_raw");
    node("Sigmoid", &["flat_raw"], "parts");
    node("Slice", &["parts", "from", "four", "axis"], "box_parts");
    node("Slice", &["parts", "four", "all", "axis"], "confidences");
    node("Slice", &["flat_raw", "four", "all", "axis"], "raw_scores");
    node("Mul", &["box_parts", "side"], "pixels");
    node("Slice", &["box_parts", "from", "two", "axis"], "centre");
    node("Slice", &["box_parts", "two", "four", "axis"], "size");
    node("Div", &["size", "half"], "half_size");
    node("Sub", &["centre", "half_size"], "start");
    node("Add", &["centre", "half_size"], "end");
    let mut joined = vec![node("Concat", &["start", "end"], "corners")];
    let mut turned = Vec::new();
    let (boxes, scores) = match outputs {
        Outputs::One => {
            joined.push(node("Concat", &["pixels", "confidences"], "output0"));
            ("", "")
        }
        Outputs::Centres => ("pixels", "confidences"),
        Outputs::Corners | Outputs::Suppressed => ("corners", "raw_scores"),
    };
    if outputs != Outputs::One {
        turned.push(node("Transpose", &[boxes], "boxes"));
        turned.push(node("Transpose", &[scores], "scores"));
    }
    let count = (outputs == Outputs::Suppressed).then(|| node("ReduceMax", &["scores"], "most"));
    graph.nodes[conv].attributes.insert("strides".to_owned(), Attribute::Ints(vec![4, 4]));
    for index in joined {
        graph.nodes[index].attributes.insert("axis".to_owned(), Attribute::Int(1));
    }
    for index in turned {
        graph.nodes[index].attributes.insert("perm".to_owned(), Attribute::Ints(vec![0, 2, 1]));
    }
    if let Some(index) = count {
        let attributes = &mut graph.nodes[index].attributes;
        attributes.insert("axes".to_owned(), Attribute::Ints(vec![1, 2]));
        attributes.insert("keepdims".to_owned(), Attribute::Int(0));
        // A whole number, as EfficientNMS gives it: nothing reads it as a float.
        let mut cast = Node::new("count", "Cast", &["most"], &["num_dets"]);
        cast.attributes.insert("to".to_owned(), Attribute::Int(6));
        graph.nodes.push(cast);
        graph.outputs.push(ValueInfo {
            dtype: Some(DType::I32),
            ..ValueInfo::f32("num_dets", extents(&[]))
        });
    }
    graph.outputs.extend(match outputs {
        Outputs::One => vec![ValueInfo::f32("output0", extents(&[channels, ANCHORS]))],
        // As RT-DETR has them: scores first.
        Outputs::Corners => vec![
            ValueInfo::f32("scores", extents(&[ANCHORS, CLASSES])),
            ValueInfo::f32("boxes", extents(&[ANCHORS, 4])),
        ],
        Outputs::Centres | Outputs::Suppressed => vec![
            ValueInfo::f32("boxes", extents(&[ANCHORS, 4])),
            ValueInfo::f32("scores", extents(&[ANCHORS, CLASSES])),
        ],
    });
    Model::new(graph, 17)
}

fn file(folder: &Path, name: &str, off: f32, outputs: Outputs) -> PathBuf {
    let path = folder.join(format!("{name}.onnx"));
    onnx::write_one_file(&detector(off, outputs), &path).unwrap();
    path
}

/// The engine of a model's file.
pub fn built(path: &Path) -> PathBuf {
    let folder = path.with_extension("engine");
    std::fs::create_dir(&folder).unwrap();
    let request = Build {
        path,
        model: &onnx::read(path).unwrap(),
        folder: &folder,
        batch: 1,
        compute_capability: None,
        precision: None,
        threads: 1,
        saturate: false,
        tensorrt: Default::default(),
        tell: &|_| (),
    };
    engine::build(Backend::Onnxruntime, &request).unwrap();
    folder
}

/// Runs `evaluate`; its figures and boxes.
fn evaluate(
    folder: &Path,
    subject: (&str, &Path),
    reference: &Path,
    detection: Option<Value>,
) -> Result<(Metrics, Value), Error> {
    let mut config = json!({
        "task": "detection", "reference": "@input", "data": "@input", "batch_size": 50,
        subject.0: "@input",
    });
    if let Some(detection) = detection {
        config["detection"] = detection;
    }
    let spec = json!({
        "format": "idx", "path": "images-idx3", "classes": ["a", "b", "c"],
        "transform": [{ "normalize": { "mean": [0.3], "std": [0.35] } }],
    });
    let paths = json!({ "path": folder.join("path"), "labels": folder.join("labels") });
    let inputs = json!({
        subject.0: { "is": "path", "path": subject.1 },
        "reference": { "is": "path", "path": reference },
        "data": { "is": "data", "spec": spec, "paths": paths },
    });
    let outputs = ["metrics", "boxes"].map(|port| (port.to_owned(), folder.join(port)));
    let task = Task {
        protocol: PROTOCOL,
        version: String::new(),
        stage: "measured".to_owned(),
        kind: "evaluate".to_owned(),
        config,
        inputs: serde_json::from_value(inputs).unwrap(),
        outputs: BTreeMap::from(outputs),
        checkpoints: folder.to_owned(),
        scratch: folder.to_owned(),
        seed: 1,
        threads: 1,
    };
    let events = Events::new(Box::new(std::io::sink()));
    let run = RUNS.iter().find(|run| run.kind == "evaluate").unwrap().run;
    let metrics = run(&Context { task: &task, events: &events })?;
    let boxes = std::fs::read(folder.join("boxes")).unwrap();
    Ok((metrics, serde_json::from_slice(&boxes).unwrap()))
}

#[test]
fn boxes_and_scores_apart_give_the_figures_of_one_output() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    drop(dataset(folder, SIDE as usize));
    let pair = |name: &str, outputs| {
        let of = |what: &str, off| file(folder, &format!("{name}_{what}"), off, outputs);
        (of("subject", 0.04), of("reference", 0.0))
    };
    let (subject, reference) = pair("one", Outputs::One);
    let (expected, expected_boxes) =
        evaluate(folder, ("model", &subject), &reference, None).unwrap();
    let map = expected["map"].as_f64().unwrap();
    assert!(map > 0.1 && map < 0.99, "they differ, and are alike: {expected:?}");
    assert!(expected["reference_boxes"].as_u64().unwrap() > 100, "{expected:?}");

    let centres = json!({ "form": "separate", "boxes": "cxcywh" });
    let (subject, reference) = pair("centres", Outputs::Centres);
    let found = evaluate(folder, ("model", &subject), &reference, Some(centres.clone())).unwrap();
    assert_eq!(found, (expected.clone(), expected_boxes.clone()));

    // The sigmoid of a logit may be off in its last place; boxes are not.
    let corners =
        json!({ "form": "separate", "boxes": "xyxy", "normalized": true, "logits": true });
    let (own, other) = pair("corners", Outputs::Corners);
    let (found, boxes) = evaluate(folder, ("model", &own), &other, Some(corners)).unwrap();
    assert_eq!(found, expected);
    let corners = |boxes: &Value| -> Vec<Value> {
        let images = boxes.as_array().unwrap().iter();
        let boxes = images.flat_map(|image| image["found"].as_array().unwrap().clone());
        boxes.map(|found| found["corners"].clone()).collect()
    };
    assert_eq!(corners(&boxes), corners(&expected_boxes));

    // The engines of both.
    let (subject, reference) = (built(&subject), built(&reference));
    let (found, _) = evaluate(folder, ("engine", &subject), &reference, Some(centres)).unwrap();
    assert_eq!((&found["subject"], &found["backend"]), (&json!("engine"), &json!("onnxruntime")));
    for key in ["map50", "mean_iou", "recall"] {
        let value = |of: &Metrics| of[key].as_f64().unwrap();
        assert!((value(&found) - value(&expected)).abs() < 0.01, "{key}: {found:?}");
    }
}

#[test]
fn what_is_missing_is_said_where_boxes_are_apart_or_suppressed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    drop(dataset(folder, SIDE as usize));
    let one = file(folder, "one", 0.0, Outputs::One);
    let refused = |outputs, detection| {
        let own = file(folder, "own", 0.0, outputs);
        evaluate(folder, ("model", &own), &one, detection).unwrap_err()
    };
    let error = refused(Outputs::Corners, None);
    assert!(
        error.message.contains("boxes and scores apart, [50, 64, 3] and [50, 64, 4]"),
        "{error}"
    );
    assert!(error.help.unwrap().contains("form = \"separate\""));
    let error = refused(Outputs::Suppressed, None);
    assert!(error.help.as_ref().unwrap().contains("export it without NMS"), "{error}");
    let separate = json!({ "form": "separate", "boxes": "xyxy" });
    let error = refused(Outputs::Suppressed, Some(separate.clone()));
    assert!(error.help.as_ref().unwrap().contains("export it without NMS"), "{error}");
    let error = refused(Outputs::One, Some(separate));
    assert!(error.message.contains("expected two outputs"), "{error}");
}
