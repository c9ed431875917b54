//! Models that end in a Softmax: what they give is told from logits, in simulation, of engines, and in trainings.

use qpipe_worker::graph::{Dim, Model, Node};
use qpipe_worker::onnx;
use serde_json::{Value, json};

use crate::trtexec::{Ended, Machine, evaluate, model};

/// The recorded engine's model with a Softmax behind it.
fn softmax() -> Model {
    let mut model = model(Dim::Named("n".to_owned()));
    let last = model.graph.nodes.last_mut().unwrap();
    last.outputs[0] = "logits".to_owned();
    model.graph.nodes.push(Node::new("end", "Softmax", &["logits"], &["y"]));
    model
}

/// The data that `evaluate` wrote, as an input.
fn data(machine: &Machine) -> Value {
    let spec =
        json!({"format": "idx", "path": "@input", "labels": "@input", "classes": ["a", "b"]});
    let paths = json!({"path": machine.path("images-idx3"), "labels": machine.path("labels-idx1")});
    json!({"is": "data", "spec": spec, "paths": paths})
}

fn simulated(machine: &Machine, name: &str, model: &Model) -> Ended {
    let path = machine.path(&format!("{name}.onnx"));
    onnx::write(model, &path).unwrap();
    let inputs = json!({"model": {"is": "path", "path": path}, "data": data(machine)});
    let config = json!({"model": "@input", "data": "@input", "batch_size": 44});
    let outputs =
        [("metrics", "metrics.json"), ("confusion", "confusion.json"), ("logits", "logits.npy")];
    machine.stage(name, "evaluate", config, inputs, &outputs)
}

#[test]
fn the_loss_is_that_of_probabilities_and_told() {
    let machine = Machine::new("ok");
    // Opset 13, whose Softmax takes the last axis.
    onnx::write(&softmax(), &machine.path("free.onnx")).unwrap();
    let built = machine.build("engine", "free.onnx", json!({"batch": 8}));
    assert_eq!(built.failure, None, "{built:?}");
    let engine = evaluate(&machine);
    let told = "the model ends in a Softmax: `loss` is that of its probabilities";
    assert!(engine.warnings.iter().any(|line| line.starts_with(told)), "{engine:?}");
    let loss = |ended: &Ended| ended.metrics["loss"].as_f64().unwrap();

    let logits = simulated(&machine, "logits", &model(Dim::Named("n".to_owned())));
    assert_eq!(logits.warnings, Vec::<String>::new());
    let probabilities = simulated(&machine, "probabilities", &softmax());
    assert!(probabilities.warnings[0].starts_with(told), "{probabilities:?}");
    let (one, other) = (loss(&logits), loss(&probabilities));
    assert!((one - other).abs() < 1e-5, "{one} {other}");
    let confusion = std::fs::read(machine.path("logits/out/confusion.json")).unwrap();
    let confusion: Value = serde_json::from_slice(&confusion).unwrap();
    assert_eq!(confusion["nan"], 0, "{confusion}");
}

#[test]
fn a_training_through_it_warns() {
    let machine = Machine::new("ok");
    machine.build("engine", "fixed.onnx", json!({}));
    evaluate(&machine);
    let path = machine.path("free.onnx");
    onnx::write(&softmax(), &path).unwrap();
    let inputs = json!({
        "model": {"is": "path", "path": path}, "train": data(&machine), "valid": data(&machine),
    });
    let config = json!({
        "model": "@input", "train": "@input", "valid": "@input", "epochs": 1, "batch_size": 22,
        "optimizer": {"kind": "sgd", "lr": 0.01},
    });
    let outputs = [("model", "model.onnx"), ("history", "history.json")];
    let ended = machine.stage("train", "finetune", config, inputs, &outputs);
    assert_eq!(ended.failure, None, "{ended:?}");
    let told = "the model ends in a Softmax, node \"end\": the loss";
    assert!(ended.warnings.iter().any(|line| line.starts_with(told)), "{ended:?}");
}
