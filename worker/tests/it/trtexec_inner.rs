//! Inner values of engines whose runtime shows outputs alone, TensorRT and libtorch: the engine is built once more with them as outputs.

use qpipe_worker::analysis::Seen;
use qpipe_worker::{onnx, passes};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::trtexec::{Ended, Machine, message};

const FIRST: &str = "/conv1/Conv.x_dq";
const SECOND: &str = "/layer1/layer1.0/conv1/Conv.x_dq";

/// `verify` of an engine of the model on 6 images, of which two fill a batch of 8 up.
fn verify(machine: &Machine, more: Value) -> Ended {
    let count = 8_u8;
    let pixels = (0..usize::from(count) * 16).map(|at| (at * 37 % 251) as u8);
    let images =
        [vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 4, 0, 0, 0, 4], pixels.collect()].concat();
    std::fs::write(machine.path("images-idx3"), images).unwrap();
    let labels = [vec![0, 0, 8, 1, 0, 0, 0, count], vec![0; count.into()]].concat();
    std::fs::write(machine.path("labels-idx1"), labels).unwrap();
    let spec = json!({"format": "idx", "path": "@input", "labels": "@input", "classes": ["a"]});
    let paths = json!({"path": machine.path("images-idx3"), "labels": machine.path("labels-idx1")});
    let inputs = json!({
        "model": {"is": "path", "path": machine.path("fixed.onnx")},
        "onnx": {"is": "path", "path": machine.path("fixed.onnx")},
        "engine": {"is": "path", "path": machine.path("engine/out/engine")},
        "data": {"is": "data", "spec": spec, "paths": paths},
    });
    let mut config =
        json!({"model": "@input", "onnx": "@input", "engine": "@input", "data": "@input"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let outputs = [("metrics", "metrics.json"), ("values", "values.json")];
    machine.stage("verify", "verify", config, inputs, &outputs)
}

/// Builds of a file of its own and not of the pipeline's.
fn second_builds(machine: &Machine) -> usize {
    machine.calls().iter().filter(|call| call.contains("shown.onnx")).count()
}

/// Names of the values of the last comparison of `verify`.
fn shown_values(machine: &Machine) -> Vec<String> {
    let text = std::fs::read(machine.path("verify/out/values.json")).unwrap();
    let values: Value = serde_json::from_slice(&text).unwrap();
    let last = values.as_array().unwrap().last().unwrap()["values"].as_array().unwrap();
    last.iter().map(|value| value["tensor"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_first_value_that_an_engine_loses_is_named() {
    let verified = json!({"verify": true});
    for (how, expected) in [
        (
            "lost",
            "The first value that is lost: node \"/layer1/layer1.0/conv1/Conv.x_dq\" (DequantizeLinear)",
        ),
        (
            "wrong",
            "The first value that is lost: somewhere between \"/layer1/layer1.0/conv1/Conv.x_dq\" and node \"flat\" (Flatten) (3 nodes): \"y\" of the engine, built once more",
        ),
    ] {
        let machine = Machine::new(how);
        let ended = machine.build("engine", "fixed.onnx", verified.clone());
        let told = message(&ended);
        let up_to = "somewhere up to node \"flat\" (Flatten) (4 nodes): \"y\" of the engine is not";
        assert!(told.starts_with(up_to), "{told}");
        assert!(told.contains(expected) && told.contains("SQNR 6.0 dB"), "{how}: {told}");
        let calls = machine.calls();
        let second: Vec<&String> =
            calls.iter().filter(|call| call.contains("shown.onnx")).collect();
        assert_eq!(second.len(), 1, "{calls:?}");
        assert!(second[0].contains("--int8 --fp16"), "as the engine itself: {second:?}");
        let mut left: Vec<_> = std::fs::read_dir(machine.path("engine/out"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["engine", "layers.json"], "what was built to look is gone");
    }
}

#[test]
fn an_engine_that_alone_is_wrong_is_told_from_one_whose_values_are_lost() {
    let machine = Machine::new("odd");
    let ended = machine.build("engine", "fixed.onnx", json!({"verify": true}));
    let failure = ended.failure.expect("is refused");
    let help = failure["help"].to_string();
    assert!(help.contains("with 2 inner values"), "{help}");
    assert!(help.contains("of this build alone is at fault"), "{help}");
}

#[test]
fn inner_values_of_an_engine_are_compared_where_that_is_asked() {
    let mut machine = Machine::new("right");
    let kept = machine.path("kept.onnx");
    machine.set("FAKE_TRTEXEC_KEEP", kept.to_str().unwrap());
    assert_eq!(machine.build("engine", "fixed.onnx", json!({})).failure, None);
    machine.calls();
    let ended = verify(&machine, json!({}));
    assert_eq!(ended.failure, None, "{ended:?}");
    assert_eq!(second_builds(&machine), 0, "nothing is lost, nothing was asked");
    assert!(!ended.metrics.contains_key("engine_values_sqnr_db"));

    let ended = verify(&machine, json!({"engine_values": "always"}));
    assert_eq!(ended.failure, None, "{ended:?}");
    assert_eq!(second_builds(&machine), 1);
    let worst = &ended.metrics["engine_values_sqnr_db"];
    assert!(worst.as_f64().is_none_or(|decibels| decibels > 20.0), "{worst}");
    assert_eq!(shown_values(&machine), [FIRST, SECOND, "y"]);

    // What was built is a model, whose further outputs are these values.
    let mut model = onnx::read(&kept).unwrap();
    passes::simplify(&mut model).unwrap();
    let images = Tensor::randn([8, 1, 4, 4], (Kind::Float, Device::Cpu));
    let all = [FIRST, SECOND].map(str::to_owned);
    let (outputs, values) = Seen::new(&model, &all).unwrap().run(&images).unwrap();
    assert_eq!(outputs.len(), 3);
    for (output, name) in outputs[1..].iter().zip(&all) {
        assert!(output.equal(&values[name]), "{name}");
    }
}

#[test]
fn a_verification_names_the_value_unless_it_is_told_not_to_look() {
    let mut machine = Machine::new("right");
    assert_eq!(machine.build("engine", "fixed.onnx", json!({})).failure, None);
    machine.set("FAKE_TRTEXEC", "lost");
    machine.calls();
    let told = message(&verify(&machine, json!({})));
    assert!(told.contains(&format!("The first value that is lost: node \"{SECOND}\"")), "{told}");
    assert_eq!(second_builds(&machine), 1);
    let told = message(&verify(&machine, json!({"engine_values": "never"})));
    assert!(told.contains("\"y\" of the engine") && !told.contains(SECOND), "{told}");
    assert_eq!(second_builds(&machine), 0);
}

/// Its times are those of a machine that it does not have alone: later builds do not get them, and none of a cache where the engine had none.
#[test]
fn a_second_build_reads_the_timing_cache_of_the_first_alone() {
    let machine = Machine::new("right");
    let folder = machine.path("home/qpipe/tensorrt");
    let shared = || -> Vec<u8> {
        let files = std::fs::read_dir(&folder).into_iter().flatten();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    };
    for wanted in [false, true] {
        let built = machine.build("engine", "fixed.onnx", json!({"timing_cache": wanted}));
        assert_eq!(built.failure, None, "{built:?}");
        let before = shared();
        assert_eq!(before.is_empty(), !wanted);
        machine.calls();
        let ended = verify(&machine, json!({"engine_values": "always"}));
        assert_eq!(ended.failure, None, "{ended:?}");
        let calls = machine.calls();
        let second = calls.iter().find(|call| call.contains("shown.onnx")).unwrap();
        assert_eq!(second.contains("--timingCacheFile"), wanted, "{second}");
        assert_eq!(shared(), before, "nothing of it is kept");
    }
    // A cache that a build beside others fails of is not to blame for it.
    let mut machine = machine;
    machine.set("FAKE_TRTEXEC", "ignored");
    verify(&machine, json!({"engine_values": "always"}));
    assert_eq!(second_builds(&machine), 1);
    assert!(
        !std::fs::read_dir(&folder)
            .unwrap()
            .any(|file| { file.unwrap().file_name().to_string_lossy().ends_with("cache-refused") })
    );
}

/// Since 11 the float part is cast to FP16 in the file, which keeps the values that are shown.
#[test]
fn strongly_typed_versions_show_the_same_values() {
    let mut machine = Machine::new("lost");
    machine.set("FAKE_TRTEXEC_VERSION", "110000");
    let ended = machine.build("engine", "fixed.onnx", json!({"verify": true}));
    let told = message(&ended);
    assert!(
        told.contains(&format!("The first value that is lost: node \"{SECOND}\"")),
        "{ended:?}"
    );
    let calls = machine.calls();
    let second =
        calls.iter().find(|call| call.contains("--saveEngine") && !call.contains("out/engine"));
    assert!(
        second.is_some_and(|call| call.contains("float16.onnx") && !call.contains("--int8")),
        "{calls:?}"
    );
}

#[test]
fn engines_of_libtorch_are_looked_into_the_same_way() {
    let machine = Machine::new("ok");
    let built = machine.build("engine", "fixed.onnx", json!({"backend": "torch", "batch": 1}));
    assert_eq!(built.failure, None, "{built:?}");
    let ended = verify(&machine, json!({"engine_values": "always"}));
    assert_eq!(ended.failure, None, "{ended:?}");
    assert_eq!(shown_values(&machine), [FIRST, SECOND, "y"]);
    let worst = &ended.metrics["engine_values_sqnr_db"];
    assert!(worst.as_f64().is_none_or(|decibels| decibels > 60.0), "{worst}");
}
