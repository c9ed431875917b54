//! What is written is what is read.

use super::*;
use crate::graph::{Attribute, Dim, Graph, Node, TensorData, ValueInfo};
use crate::onnx::{self, wire};

fn model() -> Model {
    let mut graph = Graph {
        name: "g".to_owned(),
        inputs: vec![ValueInfo::f32("x", vec![Dim::Named("batch".to_owned()), Dim::Fixed(2)])],
        outputs: vec![ValueInfo::f32("y", vec![Dim::Unknown, Dim::Fixed(3)])],
        ..Graph::default()
    };
    graph.initializers.insert("w".to_owned(), TensorData::f32(&[3, 2], &[1.0; 6]));
    graph
        .nodes
        .push(Node::new("fc", "Gemm", &["x", "w"], &["y"]).with("transB", Attribute::Int(1)));
    Model::new(graph, 17)
}

#[test]
fn comes_back_equal_and_has_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    write(&model(), &path).unwrap();
    let first = fs::read(&path).unwrap();
    let back = onnx::read(&path).unwrap();
    assert_eq!(back, model());
    write(&back, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file left");
}

#[test]
fn what_is_not_understood_comes_back() {
    let mut model = model();
    wire::put_bytes(&mut model.opaque, 25, b"\x0a\x01f");
    wire::put_bytes(&mut model.graph.opaque, 14, b"quantization annotation");
    wire::put_bytes(&mut model.graph.nodes[0].opaque, 9, b"metadata");
    assert_eq!(onnx::parse(to_bytes(&model).unwrap()).unwrap(), model);
}

#[test]
fn a_truncated_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.onnx");
    let bytes = to_bytes(&model()).unwrap();
    for length in [1, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = onnx::read(&path).unwrap_err();
        assert!(error.message.contains("cut.onnx"), "{error}");
    }
}
