//! Backend `tensorrt` from the task to the report without a GPU: the worker's program, with a trtexec that replays recordings.

use std::path::{Path, PathBuf};
use std::process::Command;

use qpipe::stages::contract::Metrics;
use qpipe_worker::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::onnx;
use serde_json::{Value, json};

/// A model whose nodes have names of the recorded engine: two convolutions behind Q/DQ pairs.
pub fn model(batch: Dim) -> Model {
    let mut graph = Graph::default();
    let mut x = "x".to_owned();
    for name in ["/conv1/Conv", "/layer1/layer1.0/conv1/Conv"] {
        let value = |part: &str| format!("{name}.{part}");
        for (from, part) in [(x.clone(), "x"), (value("w"), "w")] {
            let (q, dq) = (value(&format!("{part}_q")), value(&format!("{part}_dq")));
            let scale = ["scale", "zero"];
            graph.nodes.push(Node::new(&q, "QuantizeLinear", &[&from, scale[0], scale[1]], &[&q]));
            graph.nodes.push(Node::new(&dq, "DequantizeLinear", &[&q, scale[0], scale[1]], &[&dq]));
        }
        let conv = Node::new(name, "Conv", &[&value("x_dq"), &value("w_dq")], &[&value("y")]);
        graph.nodes.push(conv);
        let channels = if name == "/conv1/Conv" { 1 } else { 2 };
        let weights = vec![0.5; 2 * channels];
        graph
            .initializers
            .insert(value("w"), TensorData::f32(&[2, channels as i64, 1, 1], &weights));
        x = value("y");
    }
    graph.nodes.push(Node::new("pool", "GlobalAveragePool", &[&x], &["p"]));
    graph.nodes.push(Node::new("flat", "Flatten", &["p"], &["y"]).with("axis", Attribute::Int(1)));
    graph.initializers.insert("scale".to_owned(), TensorData::f32(&[], &[0.02]));
    graph.initializers.insert("zero".to_owned(), TensorData::i8(&[], &[0]));
    let fixed = |extents: [i64; 3]| extents.map(Dim::Fixed);
    graph
        .inputs
        .push(ValueInfo::f32("x", [vec![batch.clone()], fixed([1, 4, 4]).to_vec()].concat()));
    graph.outputs.push(ValueInfo::f32("y", vec![batch, Dim::Fixed(2)]));
    Model::new(graph, 13)
}

/// A machine with a GPU, and a folder for stages.
pub struct Machine {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

/// How a stage ended: its figures or its failure, and its warnings.
#[derive(Debug)]
pub struct Ended {
    pub metrics: Metrics,
    pub failure: Option<Value>,
    pub warnings: Vec<String>,
    progress: Vec<String>,
}

impl Machine {
    pub fn new(how: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        onnx::write(&model(Dim::Fixed(8)), &folder.path().join("fixed.onnx")).unwrap();
        onnx::write(&model(Dim::Named("n".to_owned())), &folder.path().join("free.onnx")).unwrap();
        Self { folder, variables: vec![("FAKE_TRTEXEC", how.to_owned())] }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn set(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    pub fn worker(&self, arguments: &[&str]) -> Command {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let fakes = crate_folder.join("tests/it/data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpipe-worker"));
        command
            .args(arguments)
            .env("PATH", format!("{}:/usr/bin:/bin", fakes.display()))
            .env("FAKE_TRTEXEC_RECORDED", crate_folder.join("src/engine/tensorrt/recorded"))
            .env("FAKE_TRTEXEC_CALLS", self.path("calls"))
            .env("XDG_CACHE_HOME", self.path("home"))
            .env_remove("TRTEXEC")
            .env_remove("TENSORRT_DIR")
            .env_remove("CUDA_VISIBLE_DEVICES")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The worker for a stage of this kind.
    pub fn task(
        &self,
        name: &str,
        kind: &str,
        config: Value,
        inputs: Value,
        outputs: &[(&str, &str)],
    ) -> Command {
        for part in ["out", "scratch", "checkpoints"] {
            std::fs::create_dir_all(self.path(name).join(part)).unwrap();
        }
        let outputs = outputs.iter().map(|(port, file)| {
            ((*port).to_owned(), json!(self.path(name).join("out").join(file)))
        });
        let task = json!({
            "protocol": qpipe::task::PROTOCOL, "version": env!("CARGO_PKG_VERSION"), "stage": name, "kind": kind,
            "config": config, "inputs": inputs, "outputs": outputs.collect::<serde_json::Map<_, _>>(),
            "scratch": self.path(name).join("scratch"), "checkpoints": self.path(name).join("checkpoints"),
            "seed": 1, "threads": if kind == "evaluate" { 3 } else { 1 },
        });
        let file = self.path(name).join("task.json");
        std::fs::write(&file, task.to_string()).unwrap();
        self.worker(&["run", file.to_str().unwrap()])
    }

    /// Runs a stage of this kind.
    pub fn stage(
        &self,
        name: &str,
        kind: &str,
        config: Value,
        inputs: Value,
        outputs: &[(&str, &str)],
    ) -> Ended {
        Self::ended(&mut self.task(name, kind, config, inputs, outputs))
    }

    fn ended(worker: &mut Command) -> Ended {
        let output = worker.output().unwrap();
        let mut ended = Ended {
            metrics: Metrics::new(),
            failure: None,
            warnings: Vec::new(),
            progress: Vec::new(),
        };
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            match event["event"].as_str().unwrap() {
                "done" => ended.metrics = serde_json::from_value(event["metrics"].clone()).unwrap(),
                "failed" => ended.failure = Some(event["failure"].clone()),
                "warning" => ended.warnings.push(text("message")),
                "progress" => ended.progress.push(text("message")),
                _ => {}
            }
        }
        ended
    }

    /// `build-engine` of `file` with more keys. What most recordings compute is not what the model says.
    pub fn build(&self, name: &str, file: &str, more: Value) -> Ended {
        Self::ended(&mut self.build_task(name, file, more))
    }

    /// The worker for it.
    pub fn build_task(&self, name: &str, file: &str, more: Value) -> Command {
        let mut config =
            json!({"model": "@input", "backend": "tensorrt", "batch": 8, "verify": false});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let inputs = json!({"model": {"is": "path", "path": self.path(file)}});
        let outputs = [("engine", "engine"), ("layers", "layers.json")];
        self.task(name, "build-engine", config, inputs, &outputs)
    }

    pub fn benchmark(&self, name: &str, engine: &str, more: Value) -> Ended {
        let mut config = json!({"engine": "@input"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let inputs =
            json!({"engine": {"is": "path", "path": self.path(engine).join("out/engine")}});
        self.stage(name, "benchmark", config, inputs, &[("metrics", "metrics.json")])
    }

    /// What trtexec was called with, without the calls for its version.
    pub fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("calls"));
        text.lines().filter(|line| *line != "--help").map(str::to_owned).collect()
    }
}

pub fn message(ended: &Ended) -> String {
    ended
        .failure
        .as_ref()
        .map(|failure| failure["message"].as_str().unwrap().to_owned())
        .unwrap_or_default()
}

#[test]
fn an_engine_is_built_timed_and_reported() {
    let machine = Machine::new("ok");
    let built =
        machine.build("engine", "fixed.onnx", json!({"flags": ["--tacticSources=-CUBLAS"]}));
    assert_eq!(built.failure, None, "{built:?}");
    let calls = machine.calls();
    let has = |call: &str, flags: &[&str]| {
        flags.iter().all(|flag| call.split(' ').any(|word| word == *flag))
    };
    let flags = [
        "--int8",
        "--fp16",
        "--buildOnly",
        "--profilingVerbosity=detailed",
        "--tacticSources=-CUBLAS",
    ];
    assert_eq!(calls.len(), 1);
    assert!(has(&calls[0], &flags), "{calls:?}");
    assert!(calls[0].contains("--timingCacheFile=") && !calls[0].contains("Shapes"), "{calls:?}");
    let metric = |name: &str| &built.metrics[name];
    assert_eq!(
        (metric("planned_int8"), metric("float_fallbacks")),
        (&json!(2), &json!(0)),
        "{built:?}"
    );
    assert_eq!(metric("timing_cache"), "new");
    assert_eq!(metric("gpu"), "NVIDIA H100 80GB HBM3 (compute 9.0, driver 550)");
    assert!(
        metric("advice")[0].as_str().unwrap().contains("additionally specifying --fp16 or --best")
    );
    assert!(built.progress.iter().any(|line| line.starts_with("Engine built in")), "{built:?}");
    let folder = machine.path("engine/out/engine");
    for file in ["engine.json", "model.engine", "build.log", "layer-info.json"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    assert!(std::fs::read_to_string(folder.join("build.log")).unwrap().contains("Engine built in"));
    let layers: Value =
        serde_json::from_slice(&std::fs::read(machine.path("engine/out/layers.json")).unwrap())
            .unwrap();
    let conv =
        layers.as_array().unwrap().iter().find(|layer| layer["kind"] == "CaskConvolution").unwrap();
    assert_eq!(conv["precision"], "int8");
    // The second build finds what the first measured.
    assert_eq!(machine.build("again", "fixed.onnx", json!({})).metrics["timing_cache"], "used");
    machine.calls();

    let timed = machine.benchmark("bench", "engine", json!({"seconds": 2.0, "iterations": 20}));
    assert_eq!(timed.failure, None, "{timed:?}");
    let calls = machine.calls();
    let flags =
        ["--warmUp=200", "--duration=2", "--iterations=20", "--useCudaGraph", "--useSpinWait"];
    assert!(calls.len() == 1 && has(&calls[0], &flags), "{calls:?}");
    let batch = &timed.metrics["batches"][0];
    let figure = |name: &str| batch[name]["median"].as_f64().unwrap();
    assert_eq!((&batch["batch"], &batch["iterations"]), (&json!(8), &json!(150)));
    assert!(
        (figure("compute_ms") - 0.215_683).abs() < 1e-9
            && (figure("latency_ms") - 0.253_975).abs() < 1e-9
    );
    assert!((batch["throughput"].as_f64().unwrap() - 8.0 / 0.215_683e-3).abs() < 1e-3);
    assert_eq!(batch["trtexec_throughput"], json!(1497.0 * 8.0));
    assert_eq!(
        timed.metrics["gpu"]["after"],
        json!({"sm_clock_mhz": 1980.0, "temperature_c": 34.0})
    );
    let text = report(timed.metrics);
    for part in [
        "batch 8",
        "0.254",
        "37,091",
        "GPU compute time",
        "trtexec: Throughput may be bound by Enqueue Time",
        "--fp16 or --best",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

fn report(metrics: Metrics) -> String {
    let source = qpipe::report::Source {
        id: "bench".to_owned(),
        name: "bench".to_owned(),
        cell: Vec::new(),
    };
    let config = serde_json::from_value(json!({})).unwrap();
    qpipe::report::build(&config, "p", &[(source, metrics)]).unwrap().text(400)
}

#[test]
fn a_free_batch_has_a_profile() {
    let machine = Machine::new("ok");
    let built = machine.build("engine", "free.onnx", json!({"max_batch": 32, "precision": "best"}));
    assert_eq!(built.failure, None, "{built:?}");
    let call = machine.calls().remove(0);
    for flag in
        ["--best", "--minShapes=x:1x1x4x4", "--optShapes=x:8x1x4x4", "--maxShapes=x:32x1x4x4"]
    {
        assert!(call.contains(flag), "{call}");
    }
    let timed = machine.benchmark(
        "bench",
        "engine",
        json!({"batch_sizes": [1, 32], "cuda_graph": false, "warmup_ms": 5}),
    );
    assert_eq!(timed.failure, None, "{timed:?}");
    let calls = machine.calls();
    assert!(
        calls[0].contains("--shapes=x:1x1x4x4") && calls[1].contains("--shapes=x:32x1x4x4"),
        "{calls:?}"
    );
    assert!(!calls[0].contains("--useCudaGraph") && calls[0].contains("--warmUp=5"), "{calls:?}");
    let refused = machine.benchmark("beyond", "engine", json!({"batch_sizes": [64]}));
    assert_eq!(message(&refused), "the engine takes batches of 1 to 32, not 64");
}

#[test]
fn a_timing_cache_never_costs_the_build() {
    let machine = Machine::new("abort");
    let built = machine.build("engine", "fixed.onnx", json!({}));
    assert_eq!(built.failure, None, "{built:?}");
    assert_eq!(built.metrics["timing_cache"], "failed");
    assert!(built.warnings[0].contains("signal 6"), "{built:?}");
    let calls = machine.calls();
    assert!(
        calls[0].contains("--timingCacheFile") && !calls[1].contains("--timingCacheFile"),
        "{calls:?}"
    );
    // That it was so is known from now on.
    let again = machine.build("again", "fixed.onnx", json!({}));
    assert_eq!(
        (&again.metrics["timing_cache"], machine.calls().len()),
        (&json!("off"), 1),
        "{again:?}"
    );

    let machine = Machine::new("ignored");
    let built = machine.build("engine", "fixed.onnx", json!({}));
    assert_eq!(built.metrics["timing_cache"], "refused", "{built:?}");
    assert!(built.warnings[0].contains("The timing cache will not be used!"), "{built:?}");
    assert_eq!(
        machine.build("again", "fixed.onnx", json!({"timing_cache": false})).metrics["timing_cache"],
        "off"
    );
}

#[test]
fn what_fell_back_to_float_is_listed_with_its_pairs() {
    let machine = Machine::new("float");
    let built = machine.build("engine", "fixed.onnx", json!({}));
    assert_eq!(built.metrics["float_fallbacks"], json!(1), "{built:?}");
    let fallback = &built.metrics["fallbacks"][0];
    assert_eq!(
        (&fallback["node"], &fallback["precision"]),
        (&json!("/conv1/Conv"), &json!("float32"))
    );
    let pairs = ["/conv1/Conv.x_q", "/conv1/Conv.x_dq", "/conv1/Conv.w_q", "/conv1/Conv.w_dq"];
    assert_eq!(fallback["pairs"], json!(pairs));
    assert!(built.warnings[0].contains("\"/conv1/Conv\" in float32"), "{built:?}");
}

#[test]
fn tuning_keeps_the_fastest_and_records_all() {
    let machine = Machine::new("ok");
    let built = machine.build("engine", "fixed.onnx", json!({"tune": true}));
    assert_eq!(built.failure, None, "{built:?}");
    let tries = built.metrics["tries"].as_array().unwrap();
    let flags: Vec<String> = tries.iter().map(|it| it["flags"].to_string()).collect();
    let lists = [r#"["--int8","--fp16"]"#, r#"["--int8"]"#, r#"["--best"]"#];
    assert_eq!(flags, lists.iter().flat_map(|list| [*list, *list]).collect::<Vec<_>>());
    assert_eq!(built.metrics["flags"], json!(["--best"]));
    let calls = machine.calls();
    assert!(
        calls
            .iter()
            .all(|call| !call.contains("--buildOnly") && !call.contains("--timingCacheFile")),
        "{calls:?}"
    );
    let folder = machine.path("engine/out/engine");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["build.log", "engine.json", "layer-info.json", "model.engine"]);
}

#[test]
fn later_versions_are_asked_in_their_words() {
    let mut machine = Machine::new("ok");
    machine.set("FAKE_TRTEXEC_VERSION", "110000");
    let kept = machine.path("kept.onnx");
    machine.set("FAKE_TRTEXEC_KEEP", &kept.display().to_string());
    let built = machine.build("engine", "fixed.onnx", json!({}));
    assert_eq!(built.metrics["runtime"], "11.0.0", "{built:?}");
    let call = machine.calls().remove(0);
    assert!(
        call.contains("--skipInference") && !call.contains("--int8") && !call.contains("--fp16"),
        "{call}"
    );
    // What is float there is FP16 in the file that is built, and that file is gone.
    let kept = onnx::read(&kept).unwrap();
    assert!(call.contains("float16.onnx"), "{call}");
    let files = |stage: &str| -> Vec<String> {
        let entries = std::fs::read_dir(machine.path(stage).join("out/engine")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let whole = ["build.log", "engine.json", "layer-info.json", "model.engine"];
    assert_eq!(files("engine"), whole);
    // With its weights, where they lie in a file of their own.
    let mut external = onnx::read(&machine.path("fixed.onnx")).unwrap();
    external.external_data = true;
    onnx::write(&external, &machine.path("external.onnx")).unwrap();
    let built = machine.build("external", "external.onnx", json!({}));
    assert_eq!((built.failure, files("external")), (None, whole.map(str::to_owned).to_vec()));
    machine.calls();
    let scales = kept.graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear");
    let scales: Vec<DType> =
        scales.map(|node| kept.graph.initializers[&node.inputs[1]].dtype).collect();
    assert_eq!(scales, [DType::F16; 4]);
    assert_eq!(kept.graph.initializers["/conv1/Conv.w_q"].dtype, DType::I8);
    machine.build("mixed", "fixed.onnx", json!({"precision": "int8-fp32"}));
    assert!(machine.calls().remove(0).contains("fixed.onnx"));
    let refused = machine.build("best", "fixed.onnx", json!({"precision": "best"}));
    assert!(message(&refused).contains("precision = \"best\" on TensorRT 11.0.0"), "{refused:?}");
    machine.benchmark("bench", "engine", json!({}));
    let call = machine.calls().remove(0);
    assert!(call.contains("--includeDataTransfers") && !call.contains("--useCudaGraph"), "{call}");
}

#[test]
fn bad_input_is_told_in_our_words() {
    let failed = |how: &str, more: Value| {
        let ended = Machine::new(how).build("engine", "fixed.onnx", more);
        assert!(ended.failure.is_some(), "{ended:?}");
        message(&ended)
    };
    // What was no fault of the cache is not blamed on it.
    let machine = Machine::new("no-gpu");
    machine.build("engine", "fixed.onnx", json!({}));
    assert!(!machine.path("home").exists(), "a note of a refused cache");
    let parser = failed("parser", json!({}));
    assert!(parser.starts_with("TensorRT 8.5.3 cannot read the model: node \"/conv1/Conv\" (Conv): [8] Assertion failed: nchan"), "{parser}");
    assert_eq!(
        failed("ok", json!({"flags": ["--unheard-of"]})),
        "TensorRT 8.5.3 has no flag --unheard-of"
    );
    assert!(failed("no-gpu", json!({})).starts_with("no NVIDIA GPU is visible here"));
    assert!(
        failed("ok", json!({"precision": "fp16"})).contains("reads them with INT8 enabled only")
    );

    let mut machine = Machine::new("ok");
    machine.set("FAKE_TRTEXEC_VERSION", "8403");
    let old = machine.build("engine", "fixed.onnx", json!({}));
    assert!(message(&old).contains("is TensorRT 8.4.3: 8.5 or later is needed"), "{old:?}");
    let mut machine = Machine::new("ok");
    machine.set("TENSORRT_DIR", "/nowhere");
    let none = machine.build("engine", "fixed.onnx", json!({}));
    assert_eq!(message(&none), "TENSORRT_DIR=/nowhere: expected a folder with bin/trtexec in it");

    let mut machine = Machine::new("ok");
    machine.build("engine", "fixed.onnx", json!({}));
    machine.set("FAKE_TRTEXEC", "foreign");
    let foreign = message(&machine.benchmark("bench", "engine", json!({})));
    assert!(
        foreign.contains("built for another GPU or version")
            && foreign.contains("it was built by TensorRT 8.5.3 for NVIDIA H100"),
        "{foreign}"
    );
}

/// 44 images through the engine of batch 8 in stage `engine`; the last label is wrong on purpose, and classes change from batch to batch.
pub fn evaluate(machine: &Machine) -> Ended {
    let count = 44_u8;
    let labels: Vec<u8> = (0..count).map(|i| (i / 8) % 2).collect();
    let pixels = labels.iter().enumerate().flat_map(|(index, &label)| {
        let bright = (label == 0) != (index == 43);
        [if bright { 255 } else { 0 }; 16]
    });
    let images =
        [vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 4, 0, 0, 0, 4], pixels.collect()].concat();
    std::fs::write(machine.path("images-idx3"), images).unwrap();
    std::fs::write(
        machine.path("labels-idx1"),
        [vec![0, 0, 8, 1, 0, 0, 0, count], labels].concat(),
    )
    .unwrap();
    let spec =
        json!({"format": "idx", "path": "@input", "labels": "@input", "classes": ["a", "b"]});
    let paths = json!({"path": machine.path("images-idx3"), "labels": machine.path("labels-idx1")});
    let inputs = json!({
        "engine": {"is": "path", "path": machine.path("engine/out/engine")},
        "data": {"is": "data", "spec": spec, "paths": paths},
    });
    let config = json!({"engine": "@input", "data": "@input"});
    let outputs =
        [("metrics", "metrics.json"), ("confusion", "confusion.json"), ("logits", "logits.npy")];
    machine.stage("evaluate", "evaluate", config, inputs, &outputs)
}

/// One process a batch, the last filled up, whichever ends first.
#[test]
fn an_engine_is_evaluated_a_process_a_batch() {
    let machine = Machine::new("ok");
    machine.build("engine", "fixed.onnx", json!({}));
    machine.calls();
    let ended = evaluate(&machine);
    assert_eq!(ended.failure, None, "{ended:?}");
    let metric = |name: &str| &ended.metrics[name];
    assert_eq!(
        (metric("samples"), metric("top1"), metric("backend")),
        (&json!(44), &json!(43.0 / 44.0), &json!("tensorrt"))
    );
    let calls = machine.calls();
    assert_eq!(calls.len(), 6, "{calls:?}");
    assert!(
        calls[0].contains("--loadInputs='x':") && calls[0].contains("--iterations=1"),
        "{calls:?}"
    );
}

/// trtexec splits `--loadInputs` at commas and takes no quote in a path.
#[test]
fn the_folder_for_temporary_files_may_have_any_name() {
    let mut machine = Machine::new("ok");
    let folder = machine.path("a,b 'c':d");
    std::fs::create_dir(&folder).unwrap();
    machine.set("TMPDIR", folder.to_str().unwrap());
    machine.build("engine", "fixed.onnx", json!({}));
    let ended = evaluate(&machine);
    assert_eq!(ended.failure, None, "{ended:?}");
    assert_eq!(ended.metrics["top1"], 43.0 / 44.0);
}

/// What is no number stands in trtexec's file as C++ prints it, and is told as that of other engines.
#[test]
fn an_engine_that_gives_no_numbers_is_told_so() {
    let machine = Machine::new("nan");
    machine.build("engine", "fixed.onnx", json!({}));
    let ended = evaluate(&machine);
    assert_eq!(ended.failure, None, "{ended:?}");
    // An infinite logit may still be the largest: it is that of the class 0 of each second image.
    assert_eq!(
        (&ended.metrics["top1"], &ended.metrics["loss"]),
        (&json!(12.0 / 44.0), &Value::Null)
    );
    let told = "44 of 44 images have logits that are NaN or infinite: a NaN counts as wrong, and there is no loss";
    assert!(ended.warnings.contains(&told.to_owned()), "{ended:?}");
    assert!(report(ended.metrics).contains("27.27"), "a report of it");
    let built = machine.build("verified", "fixed.onnx", json!({"verify": true, "batch": 2}));
    let told = message(&built);
    assert!(
        told.contains("\"y\" of the engine is not that of the simulation: ")
            && told.contains("NaN or infinite on one side alone, SQNR -999.0 dB"),
        "{told}"
    );
}

/// By default what an engine computes is compared with its file, of any batch that it takes.
#[test]
fn an_engine_that_computes_something_else_is_refused() {
    let verified = json!({"verify": true, "batch": 2});
    let machine = Machine::new("right");
    for file in ["fixed.onnx", "free.onnx"] {
        let ended = machine.build(&format!("{file}-engine"), file, verified.clone());
        assert_eq!(ended.failure, None, "{ended:?}");
        let decibels = ended.metrics["engine_sqnr_db"].as_f64();
        assert!(decibels.is_none_or(|decibels| decibels > 20.0), "{ended:?}");
        let calls = machine.calls();
        assert_eq!(calls.iter().filter(|call| call.contains("--loadInputs=")).count(), 1);
        assert_eq!(
            calls.iter().any(|call| call.contains("--shapes=x:2x1x4x4")),
            file == "free.onnx"
        );
    }
    let machine = Machine::new("wrong");
    let ended = machine.build("engine", "fixed.onnx", verified);
    let told = message(&ended);
    assert!(
        told.contains("node \"flat\" (Flatten) (4 nodes): \"y\" of the engine is not that of the simulation: SQNR 6.0 dB"),
        "{told}"
    );
    // Ranges that TensorRT makes up for a float model compute nothing that could be compared.
    let mut graph = Graph::default();
    graph.nodes.push(Node::new("pool", "GlobalAveragePool", &["x"], &["p"]));
    graph.nodes.push(Node::new("flat", "Flatten", &["p"], &["y"]));
    let extents = |extents: &[i64]| extents.iter().copied().map(Dim::Fixed).collect();
    graph.inputs.push(ValueInfo::f32("x", extents(&[2, 1, 4, 4])));
    graph.outputs.push(ValueInfo::f32("y", extents(&[2, 1])));
    onnx::write(&Model::new(graph, 13), &machine.path("float.onnx")).unwrap();
    let made_up = json!({"verify": true, "batch": 2, "precision": "implicit"});
    let ended = machine.build("implicit", "float.onnx", made_up);
    assert_eq!(ended.failure, None, "{ended:?}");
    assert!(!ended.metrics.contains_key("engine_sqnr_db"), "{ended:?}");
}
