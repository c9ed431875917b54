//! Backend `tensorrt` with each version whose help text is recorded: its stand-in refuses what that text does not list.

use qpipe_worker::graph::{DType, Model};
use qpipe_worker::onnx;
use qpipe_worker::quant::scheme::zero_points;
use serde_json::json;

use super::trtexec::{Machine, message};

/// Numbers in the banners.
const VERSIONS: &[&str] = &["8503", "8601", "100001", "100800", "101601", "110000", "110100"];

#[test]
fn each_version_takes_what_it_is_given() {
    for &version in VERSIONS {
        let mut machine = Machine::new("right");
        machine.set("FAKE_TRTEXEC_VERSION", version);
        let has_levels = version != "8503";
        let level = if has_levels { "--builderOptimizationLevel=4" } else { "--noTF32" };
        let built = machine.build("engine", "free.onnx", json!({"verify": true, "batch": 2}));
        assert_eq!(built.failure, None, "{version}: {built:?}");
        // Since 8.6 the types of values are not told where the batch is free.
        assert_eq!(built.metrics["unseen"], json!([]), "{version}: {built:?}");
        assert_eq!(built.metrics["int8_layers"], if has_levels { 21 } else { 23 }, "{version}");
        // The cache's lock is no part of the engine.
        let files = std::fs::read_dir(machine.path("engine/out/engine")).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["build.log", "engine.json", "layer-info.json", "model.engine"]);
        let more = json!({"tune": true, "flags": [level, "--useSpinWait"]});
        let tuned = machine.build("tuned", "fixed.onnx", more);
        assert_eq!(tuned.failure, None, "{version}: {tuned:?}");
        let tries = tuned.metrics["tries"].as_array().unwrap();
        assert_eq!(tries.len(), if version.starts_with("11") { 2 } else { 6 }, "{version}");
        for cuda_graph in [true, false] {
            let timed = machine.benchmark(
                "bench",
                "engine",
                json!({"cuda_graph": cuda_graph, "batch_sizes": [1, 2]}),
            );
            assert_eq!(timed.failure, None, "{version}: {timed:?}");
        }
        let calls = machine.calls();
        assert!(calls.iter().any(|call| call.contains("--exportOutput=")), "{calls:?}");
    }
}

/// `--fp8` where the version has it and the model wants it, never beside `--int8`.
#[test]
fn pairs_of_floats_are_asked_for_as_such() {
    let machine_of = |version: &str| {
        let mut machine = Machine::new("ok");
        machine.set("FAKE_TRTEXEC_VERSION", version);
        let mut graph = onnx::read(&machine.path("fixed.onnx")).unwrap().graph;
        let zero = zero_points(DType::F8E4M3FN, &[], &[0]);
        graph.initializers.insert("zero".to_owned(), zero);
        onnx::write(&Model::new(graph, 19), &machine.path("float8.onnx")).unwrap();
        machine
    };
    for version in ["8601", "100001", "101601"] {
        let machine = machine_of(version);
        let built = machine.build("engine", "float8.onnx", json!({}));
        assert_eq!(built.failure, None, "{version}: {built:?}");
        assert_eq!(built.metrics["flags"], json!(["--fp8", "--fp16"]), "{version}");
        let counts = ["planned_int8", "planned_float8", "float_fallbacks"];
        assert_eq!(counts.map(|name| &built.metrics[name]), [&json!(0), &json!(2), &json!(0)]);
        assert_eq!(built.warnings, Vec::<String>::new(), "{version}");
        let tuned = machine.build("tuned", "float8.onnx", json!({"tune": true}));
        assert_eq!(tuned.failure, None, "{version}: {tuned:?}");
    }
    let machine = machine_of("8503");
    for more in [json!({}), json!({"tune": true})] {
        let told = message(&machine.build("engine", "float8.onnx", more));
        assert_eq!(
            told,
            "the model has Q/DQ pairs of float8 (--fp8), which TensorRT 8.5.3 does not have"
        );
    }
    assert_eq!(machine.calls(), Vec::<String>::new(), "nothing was built");
}

/// The help text that comes with the refusal speaks of timing caches: they are not at fault, and nothing is tried again.
#[test]
fn an_unknown_flag_is_told_at_once() {
    for (version, name) in [("8601", "8.6.1"), ("110100", "11.1.0")] {
        let mut machine = Machine::new("ok");
        machine.set("FAKE_TRTEXEC_VERSION", version);
        let ended = machine.build("engine", "fixed.onnx", json!({"flags": ["--unheard-of=3"]}));
        let failure = ended.failure.expect("a refusal");
        assert_eq!(failure["message"], format!("TensorRT {name} has no flag --unheard-of"));
        assert_eq!(machine.calls().len(), 1);
    }
}
