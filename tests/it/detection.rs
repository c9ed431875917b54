//! A detector from an exported file and unlabelled images to the table: calibration, sensitivity, its head in float, engines, and how far
//! boxes agree with the float model's.

use std::process::Command;

use serde_json::Value;

use crate::pipelines::{Pipeline, root};

/// A small detector that was trained for seconds, and images; PyTorch is fetched by `make deps-test`.
fn overfitted(folder: &std::path::Path) {
    let deps = root().join(".deps");
    assert!(deps.join("pytorch/torch").is_dir(), "no PyTorch: run `make deps-test` first");
    let join = |parts: &[&str]| std::env::join_paths(parts.iter().map(|part| deps.join(part)));
    let output = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
        .env("PYTHONPATH", join(&["pytorch", "python"]).unwrap())
        .env("LD_LIBRARY_PATH", join(&["pytorch/stubs", "native/nvidia/cu13/lib"]).unwrap())
        .arg(root().join("worker/tests/models/overfitted.py"))
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_detector_with_its_head_in_float_agrees_more_than_in_int8() {
    let made = tempfile::tempdir().unwrap();
    overfitted(made.path());
    let set = |key: &str, name: &str| format!("params.{key}={}", made.path().join(name).display());
    let pipeline = Pipeline::of(
        "yolov8_partial",
        &[
            &set("model", "model.onnx"),
            &set("images", "images"),
            "params.size=64",
            "params.calibration=24",
            "params.compared=8",
            "stages.bench.seconds=0.05",
        ],
    );
    let said = pipeline.run(&[]);
    assert!(said.contains("mAP50-95") && !said.contains("top-1"), "{said}");

    let measured = |stage: &str, variant: &str| -> Value {
        pipeline.json(&format!("{stage}[{variant}]/metrics.json"))
    };
    for stage in ["simulated", "measured"] {
        let figure = |variant: &str, key: &str| measured(stage, variant)[key].as_f64().unwrap();
        assert!(figure("fp32", "reference_boxes") >= 20.0, "the network finds boxes");
        for key in ["precision", "recall", "f1", "map50", "map", "mean_iou", "class_agreement"] {
            assert_eq!(
                figure("fp32", key),
                1.0,
                "{stage}: the float model is its own truth: {key}"
            );
        }
        assert!(figure("int8", "map") < 1.0, "{stage}: INT8 changes boxes");
        let (partial, int8) = (figure("partial", "map"), figure("int8", "map"));
        assert!(
            partial > int8,
            "{stage}: mAP@0.5:0.95 {partial} with the head in float, {int8} without"
        );
    }
    // What is in float: the decode tail and its layers by the pattern, three more by their sensitivity.
    let plan = |variant: &str| -> Vec<Value> {
        let plan = pipeline.json(&format!("{variant}/plan.json"));
        plan["layers"].as_array().unwrap().clone()
    };
    let count = |layers: &[Value]| layers.iter().filter(|layer| layer["quantized"] == true).count();
    let (all, partial) = (plan("int8"), plan("partial"));
    assert!(count(&partial) + 3 < count(&all), "{} of {}", count(&partial), count(&all));
    let by = |text: &str| {
        let reason = |layer: &&Value| layer["reason"].as_str().is_some_and(|it| it.contains(text));
        partial.iter().filter(reason).count()
    };
    assert_eq!(by("it is left in float"), 3);
    assert!(
        by("excluded by \"output:*:2\"") > 7,
        "the tail, six convolutions and the distribution"
    );
    lint(&pipeline, "onnxruntime");
    // Neither labels nor logits: no columns of them.
    let table = std::fs::read_to_string(pipeline.artifact("sensitivity/sensitivity.md")).unwrap();
    assert!(table.contains("| SQNR alone, dB | Cosine alone |"), "{table}");
    assert!(!table.contains("Top-1") && !table.contains("Agreement"), "{table}");
    let again = pipeline.run(&[]);
    assert!(again.contains("0 ran, "), "{again}");
    // The same in the form of the other runtime, which needs no GPU up to its engine.
    let other = ["onnx", "--set", "params.backend=tensorrt"];
    let output = pipeline.command("run", &other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lint(&pipeline, "tensorrt");
}

/// `qpipe model lint` finds nothing in both variants but layers that are float between others because they are sensitive, which is asked for.
fn lint(pipeline: &Pipeline, target: &str) {
    let plan = pipeline.json("partial/plan.json");
    for variant in ["int8", "partial"] {
        let output = Command::new(env!("CARGO_BIN_EXE_qpipe"))
            .args(["model", "lint", "--json", "--exit-code"])
            .arg(pipeline.artifact(&format!("onnx[{variant}]/model.onnx")))
            .output()
            .unwrap();
        let lint: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(lint["target"], target, "{lint}");
        assert!(lint["dequantize_linear"].as_u64() > Some(100), "{lint}");
        let findings = lint["findings"].as_array().unwrap();
        assert_eq!(output.status.code(), Some(if findings.is_empty() { 0 } else { 10 }));
        for finding in findings {
            assert!(variant == "partial" && finding["rule"] == "float-island", "{finding}");
            let layers = plan["layers"].as_array().unwrap();
            let own = layers.iter().find(|layer| layer["node"] == finding["node"]).unwrap();
            assert_eq!(own["reason"], "it is left in float", "{finding}");
        }
    }
}
