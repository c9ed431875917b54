//! `qpipe model` with the real worker, on files of Fashion-MNIST's pipelines and on none.

use crate::project::Project;

/// A model of one input, one Relu and one output, written by hand: IR 8, opset 13.
fn relu(name: &str, operator: &str) -> Vec<u8> {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        all.extend_from_slice(bytes);
        all
    }
    let value = |name: &str| {
        let shape = [field(1, &field(2, b"n")), field(1, &[8, 3])].concat();
        let tensor = [vec![8, 1], field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let node =
        [field(1, b"x"), field(2, b"y"), field(3, name.as_bytes()), field(4, operator.as_bytes())];
    let graph =
        [field(1, &node.concat()), field(2, b"g"), field(11, &value("x")), field(12, &value("y"))];
    [vec![8, 8], field(2, b"hand"), field(7, &graph.concat()), field(8, &[16, 13])].concat()
}

fn project() -> Project {
    let worker = std::path::Path::new(env!("CARGO_BIN_EXE_qpipe")).with_file_name("qpipe-worker");
    assert!(worker.is_file(), "no qpipe-worker: build all with `cargo test --workspace`");
    let project = Project::new("");
    std::fs::write(project.path("a.onnx"), relu("act", "Relu")).unwrap();
    std::fs::write(project.path("b.onnx"), relu("act", "NoSuchOp")).unwrap();
    project
}

#[test]
fn a_model_is_shown_with_what_can_be_done_with_it() {
    let project = project();
    let said = project.qpipe(&["model", "inspect", "a.onnx"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let expected = "\
a.onnx
  producer: hand
  format: IR 8; opsets: ai.onnx 13
  input: x float [n, 3]
  output: y float [n, 3]
  nodes: 1
         1 × Relu
  constants: 0 tensors, 0 elements, 0.0 MB; 0 parameters
  computes: 0.00 M multiply-adds (0.00 MFLOPs)
  executable: yes, 1 of 1 nodes
  trainable: no, 0 of 0 parameters: no layer reads a constant weight
";
    assert!(said.stdout.starts_with(expected), "{}", said.stdout);
    let said = project.qpipe(&["model", "inspect", "b.onnx", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["executable"]["can"], false);
    let refused = serde_json::json!([{
        "node": "act", "operator": "NoSuchOp", "opset": 13, "reason": "this operator cannot be executed",
    }]);
    assert_eq!(json["executable"]["refused"], refused);
}

#[test]
fn two_models_are_compared() {
    let project = project();
    let said = project.qpipe(&["model", "diff", "a.onnx", "b.onnx"]);
    let expected = "~ node act (Relu)\n    ~ operator: Relu → NoSuchOp\n";
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), expected), "{said:?}");
    let said = project.qpipe(&["model", "diff", "a.onnx", "a.onnx", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["same"], true);
    for (other, code) in [("a.onnx", 0), ("b.onnx", 10), ("absent.onnx", 2)] {
        let said = project.qpipe(&["model", "diff", "a.onnx", other, "--json", "--exit-code"]);
        assert_eq!(said.code, Some(code), "{said:?}");
    }
}

#[test]
fn a_model_without_pairs_has_nothing_to_lint_and_a_runtime_must_be_known() {
    let project = project();
    let said = project.qpipe(&["model", "lint", "a.onnx"]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "a.onnx: no Q/DQ pairs: nothing in it is quantized\n"),
        "{said:?}"
    );
    let said = project.qpipe(&["model", "lint", "a.onnx", "--target", "tensorflow"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("known are tensorrt, tensorrt-rtx, onnxruntime"), "{said:?}");
}

#[test]
fn a_file_that_is_no_model_and_a_worker_that_is_missing() {
    let project = project();
    project.write("text.onnx", "no model");
    for file in ["text.onnx", "absent.onnx"] {
        let said = project.qpipe(&["model", "inspect", file]);
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.stderr.starts_with(&format!("error: {file}: ")), "{said:?}");
    }
    let mut command = project.command(&["model", "inspect", "a.onnx"]);
    let said = project.said(command.env("QPIPE_WORKER", "/nowhere/qpipe-worker"));
    assert_eq!(said.code, Some(3), "{said:?}");
}
