//! `evaluate`, `sensitivity` and `verify` of images in folders: sizes that are known only when they are read, and what is told of a data set.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use qpipe::stages::contract::Metrics;
use qpipe::task::{PROTOCOL, Task};
use qpipe_worker::graph::{Dim, Graph, Model, Node, ValueInfo};
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
        let mut inputs = json!({ "data": { "is": "data", "spec": spec, "paths": paths } });
        for (port, path) in files {
            inputs[*port] = json!({ "is": "path", "path": path });
        }
        let ports = ["metrics", "confusion", "logits", "boxes", "values"];
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
    // Who lists them knows what they are.
    let names: Vec<String> = (0..2).map(|class| format!("class{class:02}")).collect();
    let (metrics, warnings) = bench.evaluate("model", &json!({ "classes": names }));
    assert_eq!((metrics.unwrap()["top1"].clone(), warnings), (json!(1.0), Vec::new()));
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
