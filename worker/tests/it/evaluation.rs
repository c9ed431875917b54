//! `evaluate`, `sensitivity` and `verify` of images in folders: sizes that are known only when they are read, and what is told of a data set.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use qpipe::stages::contract::Metrics;
use qpipe::task::{PROTOCOL, Task};
use qpipe_worker::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::inspect::Summary;
use qpipe_worker::stages::{Context, Events, RUNS};
use qpipe_worker::{Error, onnx};
use serde_json::{Value, json};

use crate::separate::built;

/// Values of an image of 2×2 pixels, and so classes.
const VALUES: usize = 12;

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A folder with a model whose logits are the image's values, its engine, and a folder of images of each class.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let batch = Dim::Named("batch".to_owned());
        let extents = |behind: &[i64]| -> Vec<Dim> {
            let behind = behind.iter().map(|extent| Dim::Fixed(*extent));
            std::iter::once(batch.clone()).chain(behind).collect()
        };
        let graph = Graph {
            inputs: vec![ValueInfo::f32("x", extents(&[3, 2, 2]))],
            outputs: vec![ValueInfo::f32("y", extents(&[VALUES as i64]))],
            nodes: vec![Node::new("flat", "Flatten", &["x"], &["y"])],
            ..Graph::default()
        };
        let path = bench.path("flat.onnx");
        onnx::write_one_file(&Model::new(graph, 17), &path).unwrap();
        assert_eq!(built(&path), bench.path("flat.engine"));
        for class in 0..VALUES {
            bench.image(&format!("images/class{class:02}/x.png"), 2, class);
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A square image that is 0 but for one value.
    fn image(&self, name: &str, side: usize, class: usize) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut pixels = vec![0_u8; 3 * side * side];
        let (channel, at) = (class / 4, class % 4);
        pixels[3 * at + channel] = 255;
        image::RgbImage::from_raw(side as u32, side as u32, pixels).unwrap().save(path).unwrap();
    }

    /// Runs a stage on the images; its figures, and the warnings with their keys.
    fn stage(
        &self,
        kind: &str,
        config: &Value,
        files: &[(&str, &Path)],
        keys: &Value,
    ) -> (Result<Metrics, Error>, Vec<String>) {
        let mut spec = json!({ "format": "image-folder", "path": "@input" });
        spec.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let paths = json!({ "path": self.path("images") });
        let data = json!({ "is": "data", "spec": spec, "paths": paths });
        let mut inputs = match kind {
            "train" => json!({ "train": data, "valid": data }),
            _ => json!({ "data": data }),
        };
        for (port, path) in files {
            inputs[*port] = json!({ "is": "path", "path": path });
        }
        let ports = ["metrics", "confusion", "logits", "boxes", "values", "model", "history"];
        let task = Task {
            protocol: PROTOCOL,
            version: String::new(),
            stage: "measured".to_owned(),
            kind: kind.to_owned(),
            config: config.clone(),
            inputs: serde_json::from_value(inputs).unwrap(),
            outputs: BTreeMap::from(ports.map(|port| (port.to_owned(), self.path(port)))),
            checkpoints: self.path(""),
            scratch: self.path(""),
            seed: 1,
            threads: 1,
        };
        let said = Said::default();
        let events = Events::new(Box::new(said.clone()));
        let run = RUNS.iter().find(|run| run.kind == kind).unwrap().run;
        let result = run(&Context { task: &task, events: &events });
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let warnings = events.filter(|event| event["event"] == "warning");
        let told = |event: Value| {
            let part = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", part("key"), part("message"))
        };
        (result, warnings.map(told).collect())
    }

    fn evaluate(&self, port: &str, keys: &Value) -> (Result<Metrics, Error>, Vec<String>) {
        let config = json!({ port: "@input", "data": "@input", "batch_size": 4 });
        let path = self.path(if port == "model" { "flat.onnx" } else { "flat.engine" });
        self.stage("evaluate", &config, &[(port, &path)], keys)
    }
}

#[test]
fn images_whose_size_is_known_when_they_are_read_are_evaluated() {
    let bench = Bench::new();
    for port in ["model", "engine"] {
        let (metrics, warnings) = bench.evaluate(port, &json!({}));
        assert_eq!(metrics.unwrap()["top1"], json!(1.0), "{port}");
        assert_eq!(warnings, [""; 0], "{port}");
    }
    bench.image("images/class11/y.png", 3, 3);
    let boxes =
        json!({ "task": "detection", "reference": "@input", "model": "@input", "data": "@input" });
    let files = [("model", &*bench.path("flat.onnx")), ("reference", &*bench.path("flat.engine"))];
    let (found, _) = bench.stage("evaluate", &boxes, &files, &json!({ "skip": 12 }));
    let errors = ["model", "engine"].map(|port| bench.evaluate(port, &json!({})).0);
    for error in errors.into_iter().chain([found]).map(Result::unwrap_err) {
        let expected = "images/class11/y.png is 3×3 pixels, expected 2×2";
        assert!(error.message.contains(expected), "{}", error.message);
        assert!(error.help.unwrap().ends_with("transform = [{ resize = [2, 2] }]"));
        assert_eq!(error.key, Some("data"));
    }
    let resized = |size: u32| json!({ "transform": [{ "resize": [size, size] }] });
    let (metrics, _) = bench.evaluate("engine", &resized(2));
    assert!(metrics.unwrap()["top1"].as_f64().unwrap() > 0.9);
    let error = bench.evaluate("engine", &resized(3)).0.unwrap_err();
    let expected = "the engine takes images 3×2×2, the data's are 3×3×3";
    assert_eq!((error.message.as_str(), error.key), (expected, Some("data")));
}

#[test]
fn labels_that_may_be_shifted_are_told() {
    let bench = Bench::new();
    std::fs::remove_dir_all(bench.path("images/class02")).unwrap();
    for port in ["model", "engine"] {
        let (metrics, warnings) = bench.evaluate(port, &json!({}));
        assert_eq!(metrics.unwrap()["samples"], json!(11));
        let expected = "images: 11 classes found, the model has 12 outputs: list `classes`";
        assert!(warnings[0].starts_with("data: "), "{warnings:?}");
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    }
    // Who lists all of them knows what they are; a part of them in another order has other numbers, and top-1 was 0 without a word.
    std::fs::create_dir(bench.path("images/class02")).unwrap();
    let names: Vec<String> = (0..VALUES).map(|class| format!("class{class:02}")).collect();
    let (metrics, warnings) = bench.evaluate("model", &json!({ "classes": names }));
    assert_eq!(metrics.unwrap()["top1"], json!(1.0));
    assert!(warnings.iter().all(|told| !told.contains("outputs")), "{warnings:?}");
    for port in ["model", "engine"] {
        let (metrics, warnings) =
            bench.evaluate(port, &json!({ "classes": ["class11", "class10"] }));
        assert_eq!(metrics.unwrap()["top1"], json!(0.0));
        let expected = "images: `classes` of the data set lists 2, the model has 12 outputs: labels are numbered by that list, \"class11\" is 0";
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    }
}

/// The image's values times a weight of each, trained for a step.
fn products(bench: &Bench) -> PathBuf {
    let mut model = onnx::read(&bench.path("flat.onnx")).unwrap();
    let graph = &mut model.graph;
    graph.nodes[0].outputs[0] = "f".to_owned();
    graph.nodes.push(Node::new("fc", "MatMul", &["f", "w"], &["y"]));
    let mut identity = vec![0.0; VALUES * VALUES];
    (0..VALUES).for_each(|class| identity[class * (VALUES + 1)] = 1.0);
    let weight = TensorData::f32(&[VALUES as i64; 2], &identity);
    graph.initializers.insert("w".to_owned(), weight);
    onnx::write_one_file(&model, &bench.path("fc.onnx")).unwrap();
    bench.path("fc.onnx")
}

/// Trains a file for a step, on the images and on those of `classes`; what went wrong, and the warnings but the one that both data sets are the same.
fn train(bench: &Bench, model: &Path, classes: &Value) -> (Option<Error>, Vec<String>) {
    let config = json!({ "model": "@input", "train": "@input", "valid": "@input", "epochs": 1, "max_steps": 1,
                         "batch_size": 4, "optimizer": { "kind": "sgd", "lr": 0.1 } });
    let (result, mut warnings) = bench.stage("train", &config, &[("model", model)], classes);
    let before = warnings.len();
    warnings.retain(|warning| !warning.contains("validation images are training images too"));
    assert!(result.is_err() || warnings.len() + 1 == before, "{warnings:?}");
    (result.err(), warnings)
}

#[test]
fn a_training_tells_labels_that_may_be_shifted() {
    let bench = Bench::new();
    let model = products(&bench);
    assert_eq!(train(&bench, &model, &json!({})).1, [""; 0]);
    let (error, warnings) = train(&bench, &model, &json!({ "classes": ["class11", "class10"] }));
    assert!(error.is_none() && warnings.len() == 2, "{error:?} {warnings:?}");
    for (warning, key) in warnings.iter().zip(["train", "valid"]) {
        assert!(warning.starts_with(&format!("{key}: ")), "{warnings:?}");
        assert!(warning.contains("lists 2, the model has 12 outputs"), "{warnings:?}");
    }
}

/// Normalized floats were fed to it, and figures were wrong without a word.
#[test]
fn models_that_take_other_images_are_refused_before_any_is_read() {
    let bench = Bench::new();
    let model = products(&bench);
    let refused = |change: &dyn Fn(&mut Model), expected: &str| {
        let mut other = onnx::read(&model).unwrap();
        change(&mut other);
        let path = bench.path("flat.onnx");
        onnx::write_one_file(&other, &path).unwrap();
        let errors =
            [bench.evaluate("model", &json!({})).0.err(), train(&bench, &path, &json!({})).0];
        for error in errors.map(Option::unwrap) {
            assert!(error.message.contains(expected), "{error}");
            assert_eq!(error.key, Some("model"));
            assert!(error.help.is_some());
        }
        let text = Summary::read(&path).unwrap().text();
        for line in ["executable: no, ", "trainable: no, ", "quantizable for onnxruntime: "] {
            let told = text.lines().find(|told| told.trim_start().starts_with(line));
            assert!(told.is_some_and(|told| told.contains(expected)), "{line} {text}");
        }
    };
    let cast = |model: &mut Model, dtype: DType| {
        let graph = &mut model.graph;
        graph.inputs[0].dtype = Some(dtype);
        graph.nodes[0].inputs[0] = "c".to_owned();
        graph
            .nodes
            .insert(0, Node::new("cast", "Cast", &["x"], &["c"]).with("to", Attribute::Int(1)));
    };
    refused(&|model| cast(model, DType::U8), "its input `x` is of uint8, and images are fed");
    refused(&|model| model.graph.inputs[0].dtype = Some(DType::F16), "its input `x` is of float16");
    let last = |model: &mut Model| {
        let extents = [8, 8, 3].map(Dim::Fixed);
        model.graph.inputs[0].shape.as_mut().unwrap().splice(1.., extents);
    };
    refused(
        &last,
        "its input `x` is [batch, 8, 8, 3], and images are fed as [batch, channels, height, width]",
    );
    // A Cast takes float32 as well as float16.
    let mut half = onnx::read(&model).unwrap();
    cast(&mut half, DType::F16);
    onnx::write_one_file(&half, &bench.path("flat.onnx")).unwrap();
    assert_eq!(bench.evaluate("model", &json!({})).0.unwrap()["top1"], json!(1.0));
}

#[test]
fn an_engine_of_several_outputs_is_told_as_such() {
    let bench = Bench::new();
    let mut model = onnx::read(&bench.path("flat.onnx")).unwrap();
    let mut second = model.graph.outputs[0].clone();
    second.name = "z".to_owned();
    model.graph.outputs.push(second);
    model.graph.nodes.push(Node::new("again", "Relu", &["y"], &["z"]));
    onnx::write_one_file(&model, &bench.path("flat.onnx")).unwrap();
    std::fs::remove_dir_all(bench.path("flat.engine")).unwrap();
    built(&bench.path("flat.onnx"));
    let errors = [("model", "the model"), ("engine", "the engine")]
        .map(|(port, what)| (bench.evaluate(port, &json!({})).0.unwrap_err(), what));
    let help = errors[0].0.help.clone();
    for (error, what) in errors {
        assert_eq!(error.message, format!("{what} has 2 outputs: expected logits only"));
        assert!(error.help.is_some() && error.help == help, "{error:?}");
    }
}

#[test]
fn what_skip_and_limit_leave_is_told() {
    let bench = Bench::new();
    bench.image("images/class00/y.png", 2, 0);
    let (metrics, warnings) = bench.evaluate("model", &json!({ "limit": 3 }));
    assert_eq!(metrics.unwrap()["samples"], json!(3));
    let expected =
        "images: `limit` leaves images of 2 of 12 classes: folders are read class by class";
    assert!(warnings.len() == 1 && warnings[0].ends_with(expected), "{warnings:?}");
    let (_, warnings) = bench.evaluate("model", &json!({ "skip": 1 }));
    assert!(warnings.is_empty(), "one image of the first class is left: {warnings:?}");
    let (_, warnings) = bench.evaluate("model", &json!({ "skip": 2, "limit": 9 }));
    assert!(warnings[0].contains("`skip` and `limit` leave images of 9 of 12"), "{warnings:?}");
    let error = bench.evaluate("model", &json!({ "skip": 13 })).0.unwrap_err();
    assert!(error.message.ends_with("images: no image is left: `skip` is 13, the data set has 13"));
    assert_eq!(error.key, Some("data"));
    assert!(error.help.is_some());
}

#[test]
fn each_stage_tells_what_it_does_not_read() {
    let bench = Bench::new();
    std::fs::write(bench.path("images/class00/z.webp"), "an image").unwrap();
    let config = json!({ "model": "@input", "onnx": "@input", "data": "@input" });
    let model = bench.path("flat.onnx");
    let (result, warnings) =
        bench.stage("verify", &config, &[("model", &*model), ("onnx", &*model)], &json!({}));
    result.unwrap();
    assert!(warnings[0].starts_with("data: ") && warnings[0].contains("ignored 1 file"));
    let boxes =
        json!({ "task": "detection", "reference": "@input", "model": "@input", "data": "@input" });
    let (_, warnings) =
        bench.stage("evaluate", &boxes, &[("model", &*model), ("reference", &*model)], &json!({}));
    assert!(warnings[0].contains("ignored 1 file"), "{warnings:?}");
}
