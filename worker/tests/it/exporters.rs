//! Networks as other exporters write them: Keras's by tf2onnx, Paddle's by its own, and Ultralytics' detectors by PyTorch's
//! two. `make test-exporters` fetches them (1 GB) and runs these tests; `QPIPE_TEST_NETWORKS` names some of the networks.

use crate::{parity, python, round_trip};

/// Outputs, as read and simplified; what is written back; a few steps of training.
fn all(component: &str, program: &str, expected: usize) {
    let folder = tempfile::tempdir().unwrap();
    let only = std::env::var("QPIPE_TEST_NETWORKS").unwrap_or_default();
    let mut exporter = python::exporter(component, program);
    exporter.arg(folder.path()).args(only.split_whitespace());
    let cases = parity::each_case(&mut exporter, folder.path(), |folder, name| {
        parity::compare(folder)?;
        parity::write_back(folder, name)?;
        parity::train(folder)
    });
    assert!(!only.is_empty() || cases.len() == expected, "{} files", cases.len());
    let part = |name| folder.path().join(name);
    assert_eq!(round_trip::same(&part("before"), &part("after")), cases.len());
}

#[test]
#[ignore = "needs TensorFlow: `make test-exporters`"]
fn keras_networks_of_tf2onnx_run_train_and_come_back() {
    all("keras", "keras_export.py", 8);
}

#[test]
#[ignore = "needs Paddle: `make test-exporters`"]
fn paddles_networks_run_train_and_come_back() {
    all("paddle", "paddle_export.py", 10);
}

#[test]
#[ignore = "needs Ultralytics: `make test-exporters`"]
fn ultralytics_detectors_run_train_and_come_back() {
    all("ultralytics", "ultralytics_export.py", 9);
}
