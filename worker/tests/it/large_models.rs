//! Time and memory of large models; too large for each run of the tests. docs/benchmarks.md has the commands.

use std::time::Instant;

use bytes::Bytes;
use qpipe_worker::graph::{DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::onnx;

/// A chain of additions of weights of 4 MiB each.
fn model(weights: usize) -> Model {
    let mut graph = Graph {
        name: "chain".to_owned(),
        inputs: vec![ValueInfo::f32("v0", vec![Dim::Fixed(1 << 20)])],
        outputs: vec![ValueInfo::f32(&format!("v{weights}"), vec![Dim::Fixed(1 << 20)])],
        ..Graph::default()
    };
    for index in 0..weights {
        let bytes: Bytes = vec![index as u8; 4 << 20].into();
        let tensor = TensorData { dtype: DType::F32, shape: vec![1 << 20], bytes };
        graph.initializers.insert(format!("w{index}"), tensor);
        let (input, output) = (format!("v{index}"), format!("v{}", index + 1));
        graph.nodes.push(Node::new("", "Add", &[&input, &format!("w{index}")], &[&output]));
    }
    Model::new(graph, 17)
}

/// Largest resident memory since the last call with `true`, MiB.
fn peak(reset: bool) -> f64 {
    if reset {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Writes, reads, looks at every byte and writes again.
fn measure(weights: usize) -> (usize, Model, tempfile::TempDir) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("first.onnx");
    onnx::write(&model(weights), &path).unwrap();
    let mib = weights * 4;
    let before = peak(true);
    let start = Instant::now();
    let read = onnx::read(&path).unwrap();
    let took = start.elapsed();
    println!("read {mib} MiB: {took:.2?}, {:.0} MiB more", peak(false) - before);
    let start = Instant::now();
    onnx::write(&read, &folder.path().join("second.onnx")).unwrap();
    let took = start.elapsed();
    println!(
        "written {mib} MiB: {took:.2?}, {:.0} MiB more since before reading",
        peak(false) - before
    );
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    (files, onnx::read(&folder.path().join("second.onnx")).unwrap(), folder)
}

#[test]
#[ignore = "writes 200 MB; run it alone, in a release build, for figures"]
fn a_model_of_100_mib() {
    let (files, again, _folder) = measure(25);
    assert_eq!(files, 2);
    assert_eq!(again, model(25));
}

#[test]
#[ignore = "writes 5 GB"]
fn a_model_over_2_gb_has_its_weights_beside_it() {
    let (files, again, _folder) = measure(600);
    assert_eq!(files, 4, "two models, each with its weights");
    assert!(again.external_data);
    assert_eq!(again.graph, model(600).graph);
    let error = onnx::to_bytes(&again).unwrap_err();
    assert!(error.message.contains("more than one ONNX file holds"), "{error}");
}
