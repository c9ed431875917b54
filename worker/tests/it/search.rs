//! Mixed precision by measurement, with real engines of ONNX Runtime, and with a trtexec that replays recordings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use qpipe::stages::calibrate::Method;
use qpipe::stages::contract::Metrics;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use qpipe::task::{PROTOCOL, Task};
use qpipe_worker::analysis::{Images, compare};
use qpipe_worker::data::Dataset;
use qpipe_worker::graph::Model;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, Selection, plan_for};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::search::{Candidate, Pareto, decibels, front};
use qpipe_worker::stages::{Context, Events, RUNS};
use qpipe_worker::{Error, onnx};
use serde_json::{Value, json};

use crate::quant::{dataset, ranges, small_resnet};
use crate::trtexec::Machine;

const SAMPLES: usize = 64;

/// A float model with its ranges and images, in a folder.
struct Bench {
    folder: tempfile::TempDir,
    model: Model,
    dataset: Dataset,
}

/// What a stage said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    /// Messages of events of this kind.
    fn of(&self, event: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let own = events.filter(|line| line["event"] == event);
        own.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), 28);
        let mut model = small_resnet();
        onnx::write_one_file(&model, &folder.path().join("fp32.onnx")).unwrap();
        prepare(&mut model).unwrap();
        let ranges = serde_json::to_vec(&ranges(&model, &dataset)).unwrap();
        std::fs::write(folder.path().join("ranges.json"), ranges).unwrap();
        Self { folder, model, dataset }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn inputs(&self) -> Value {
        let file = |name: &str| json!({ "is": "path", "path": self.path(name) });
        let spec = json!({
            "format": "idx", "path": "images-idx3", "classes": ["a", "b", "c"],
            "transform": [{ "normalize": { "mean": [0.3], "std": [0.35] } }],
        });
        let paths = json!({ "path": self.path("path"), "labels": self.path("labels") });
        json!({
            "model": file("fp32.onnx"), "ranges": file("ranges.json"),
            "data": { "is": "data", "spec": spec, "paths": paths },
        })
    }

    /// Runs a stage in this process; its outputs are in the folder `name`.
    fn stage(
        &self,
        name: &str,
        kind: &str,
        config: &Value,
        more: &Value,
        outputs: &[(&str, &str)],
    ) -> (Result<Metrics, Error>, Said) {
        let folder = self.path(name);
        let scratch = folder.join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        let mut inputs = self.inputs();
        inputs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let out = |&(port, file): &(&str, &str)| (port.to_owned(), folder.join(file));
        let task = Task {
            protocol: PROTOCOL,
            version: String::new(),
            stage: name.to_owned(),
            kind: kind.to_owned(),
            config: config.clone(),
            inputs: serde_json::from_value(inputs).unwrap(),
            outputs: outputs.iter().map(out).collect::<BTreeMap<_, _>>(),
            checkpoints: scratch.clone(),
            scratch,
            seed: 1,
            threads: 1,
        };
        let said = Said::default();
        let events = Events::new(Box::new(said.clone()));
        let run = RUNS.iter().find(|run| run.kind == kind).unwrap().run;
        (run(&Context { task: &task, events: &events }), said)
    }

    fn search(&self, name: &str, keys: Value, more: &Value) -> (Result<Metrics, Error>, Said) {
        let config = config("onnxruntime", keys);
        self.stage(name, "search", &config, more, &OUTPUTS)
    }

    fn insert(&self, name: &str, chosen: &Path) -> (Value, Model, Said) {
        let config = json!({
            "model": "@input", "ranges": "@input", "target": "onnxruntime", "exclude_from": "@input",
        });
        let more = json!({ "exclude_from": { "is": "path", "path": chosen } });
        let outputs = [("model", "model.onnx"), ("plan", "plan.json")];
        let (done, said) = self.stage(name, "insert-qdq", &config, &more, &outputs);
        done.unwrap();
        let plan = std::fs::read(self.path(name).join("plan.json")).unwrap();
        let model = onnx::read(&self.path(name).join("model.onnx")).unwrap();
        (serde_json::from_slice(&plan).unwrap(), model, said)
    }
}

const OUTPUTS: [(&str, &str); 4] = [
    ("chosen", "chosen.toml"),
    ("pareto", "pareto.json"),
    ("table", "pareto.md"),
    ("picture", "pareto.svg"),
];

fn config(target: &str, keys: Value) -> Value {
    let mut config = json!({
        "model": "@input", "ranges": "@input", "data": "@input", "target": target,
        "samples": SAMPLES, "batch_size": 32, "seconds": 0.05, "rounds": 5, "warmup": 2,
    });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

/// Each candidate's error as that of a whole model that is quantized so.
fn same_errors(bench: &Bench, pareto: &Pareto) {
    let text = std::fs::read(bench.path("ranges.json")).unwrap();
    let ranges = serde_json::from_slice(&text).unwrap();
    let request = Request {
        target: Target::Onnxruntime,
        method: Method::Mse,
        include: None,
        exclude: &[],
        formats: Formats::default(),
    };
    let graph = &bench.model.graph;
    let quantized = |candidate: &Candidate| {
        let mut selection = Selection::all(graph);
        for layer in &candidate.float_layers {
            let index = graph.nodes.iter().position(|node| node.label() == layer).unwrap();
            selection = selection.without(index);
        }
        let plan = plan_for(graph, &ranges, &request, &selection, TensorrtVersion::NEWEST).unwrap();
        let mut model = bench.model.clone();
        insert(&mut model, &plan).unwrap();
        model
    };
    let images =
        Images { dataset: &bench.dataset, samples: SAMPLES, batch_size: 16, seed: 1, threads: 1 };
    for candidate in pareto.candidates.iter().filter(|candidate| candidate.name != "float") {
        // As the model that others are cut from, so that nothing of it is cut.
        let whole = compare(&bench.model, &quantized(candidate), &[], &images, &|_, _| ());
        let whole = whole.unwrap().quantized;
        let near = (decibels(&whole) - decibels(&candidate.outcome)).abs() < 1e-3;
        assert!(near, "{candidate:?}, as a whole {whole:?}");
        assert_eq!(whole.top1, candidate.outcome.top1, "{}", candidate.name);
    }
}

#[test]
fn engines_are_built_timed_compared_and_the_fastest_within_the_limits_is_chosen() {
    let bench = Bench::new();
    let (done, said) =
        bench.search("wide", json!({"max_engines": 8, "min_sqnr_db": 0.0}), &json!({}));
    let metrics = done.unwrap();
    let pareto = Pareto::read(&bench.path("wide/pareto.json")).unwrap();
    assert!((4..=8).contains(&pareto.candidates.len()), "{}", pareto.candidates.len());
    assert_eq!((pareto.setting.backend.as_str(), pareto.setting.samples), ("onnxruntime", SAMPLES));
    let (float, quantized) =
        (pareto.candidate("float").unwrap(), pareto.candidate("quantized").unwrap());
    assert_eq!((float.outcome.fidelity.sqnr_db, float.speedup.median), (None, 1.0));
    assert_eq!((float.float_layers.len(), quantized.float_layers.len()), (pareto.layers.len(), 0));
    let points: Vec<(f64, f64)> = pareto
        .candidates
        .iter()
        .map(|own| (own.latency_ms.median, decibels(own.judged())))
        .collect();
    for (candidate, on_front) in pareto.candidates.iter().zip(front(&points)) {
        let latency = candidate.latency_ms;
        assert!(
            latency.p10 > 0.0 && latency.p10 <= latency.median && latency.median <= latency.p90
        );
        assert!(latency.rounds >= 5 && candidate.on_front == on_front, "{candidate:?}");
        let sqnr = decibels(&candidate.outcome);
        assert!(sqnr >= decibels(&quantized.outcome) - 0.5, "{candidate:?}");
    }
    same_errors(&bench, &pareto);
    // Engines were run on the same images; what they give is another number, and not far off.
    for candidate in pareto.candidates.iter().filter(|candidate| candidate.name != "float") {
        let engine = candidate.engine.expect("ONNX Runtime shows its outputs").outcome;
        let simulated = candidate.outcome;
        assert!(engine.fidelity.cosine > 0.9, "{engine:?}");
        assert_ne!(engine.fidelity.cosine, simulated.fidelity.cosine, "{engine:?}");
        let apart = (engine.fidelity.agreement - simulated.fidelity.agreement).abs();
        assert!(apart <= 0.05, "{engine:?}");
        assert!((decibels(&engine) - decibels(&simulated)).abs() < 3.0, "{engine:?}");
        assert_eq!(engine.top1.is_some(), simulated.top1.is_some());
    }
    assert_eq!(float.engine, None, "the float engine is what others are held to");
    let chosen = pareto.candidate(pareto.chosen.as_ref().unwrap()).unwrap();
    if let Some(engine) = chosen.engine {
        assert_eq!(metrics["engine_agreement"], json!(engine.outcome.fidelity.agreement));
    }
    // All keep the limit: the fastest.
    assert_eq!(pareto.chosen.as_ref(), Some(&pareto.candidates[0].name));
    assert_eq!(metrics["latency_ms"], json!(pareto.candidates[0].latency_ms.median));
    let warned = said.of("warning").iter().any(|line| line.contains("nowhere faster than float"));
    assert_eq!(warned, !pareto.faster_than_float, "{:?}", said.of("warning"));
    for name in ["wide/pareto.md", "wide/pareto.svg"] {
        let text = std::fs::read_to_string(bench.path(name)).unwrap();
        assert!(text.contains("quantized") && !text.contains("NaN"), "{text}");
    }

    // Half a decibel more than the engine with all layers quantized, with sensitivities that were measured before: another candidate.
    let mut sensitivity = config("onnxruntime", json!({"measure": ["alone"]}));
    for key in ["seconds", "rounds", "warmup"] {
        sensitivity.as_object_mut().unwrap().remove(key);
    }
    let outputs = [("sensitivity", "sensitivity.json"), ("table", "s.md"), ("picture", "s.svg")];
    bench.stage("sens", "sensitivity", &sensitivity, &json!({}), &outputs).0.unwrap();
    let measured =
        json!({"sensitivity": {"is": "path", "path": bench.path("sens/sensitivity.json")}});
    let least = decibels(quantized.judged()) + 0.5;
    let keys = json!({"max_engines": 8, "min_sqnr_db": least, "sensitivity": "@input"});
    let (done, said) = bench.search("narrow", keys, &measured);
    done.unwrap();
    assert!(
        !said.of("log").iter().any(|line| line.starts_with("sensitivity")),
        "not measured again"
    );
    let pareto = Pareto::read(&bench.path("narrow/pareto.json")).unwrap();
    let chosen = pareto.candidate(pareto.chosen.as_ref().unwrap()).unwrap();
    assert!(decibels(chosen.judged()) >= least && chosen.name != "quantized", "{chosen:?}");
    let faster = pareto.candidates.iter().take_while(|other| other.name != chosen.name);
    assert!(faster.into_iter().all(|other| decibels(other.judged()) < least));
    // Where engines lose more than their simulation, that is told.
    let passed_over =
        |other: &&Candidate| decibels(&other.outcome) >= least && decibels(other.judged()) < least;
    let told = said.of("warning").iter().any(|line| line.contains("its engine does not"));
    let by_simulation = pareto.candidates.iter().find(|other| decibels(&other.outcome) >= least);
    assert_eq!(told, by_simulation.as_ref().is_some_and(passed_over), "{:?}", said.of("warning"));

    // What was chosen is what is quantized.
    let chosen_file = bench.path("narrow/chosen.toml");
    let (plan, model, _) = bench.insert("mixed", &chosen_file);
    let layers = plan["layers"].as_array().unwrap();
    let float = |layer: &Value| chosen.float_layers.iter().any(|own| layer["node"] == **own);
    for layer in &pareto.layers {
        let own = layers.iter().find(|own| own["node"] == *layer.node).unwrap();
        assert_eq!(own["quantized"], json!(!float(own)), "{own}");
    }
    let pairs = model.graph.nodes.iter().any(|node| node.op_type == "QuantizeLinear");
    assert_eq!(pairs, chosen.name != "float");
}

#[test]
fn limits_that_none_keeps_are_refused_with_the_best_and_wrong_files_are_named() {
    let bench = Bench::new();
    let keys = json!({"max_engines": 3, "max_latency_ms": 1e-6, "min_sqnr_db": 5.0});
    let (done, said) = bench.search("none", keys, &json!({}));
    let error = done.unwrap_err();
    let text = &error.message;
    assert!(text.starts_with("no candidate keeps all limits (SQNR of at least 5 dB, at most 0.000001 ms): the fastest that is accurate enough is \""), "{text}");
    assert_eq!(error.key, Some("max_latency_ms"));
    assert!(
        said.of("log").iter().any(|line| line.starts_with("| Candidate |")),
        "the table is in the log"
    );

    // Sensitivities of another target.
    let report = json!({
        "version": 1, "target": "tensorrt", "method": "mse", "samples": 1, "layers": [], "accumulation": [],
        "float": {"sqnr_db": null, "cosine": 1.0, "agreement": 1.0, "top1": null, "loss": null},
        "quantized": {"sqnr_db": 20.0, "cosine": 1.0, "agreement": 1.0, "top1": null, "loss": null},
    });
    let path = bench.path("other.json");
    let given = json!({"sensitivity": {"is": "path", "path": path}});
    let refused = |report: &Value| {
        std::fs::write(&path, report.to_string()).unwrap();
        let keys = json!({"max_engines": 3, "sensitivity": "@input"});
        bench.search("refused", keys, &given).0.unwrap_err()
    };
    let error = refused(&report);
    assert!(
        error.message.contains("of target tensorrt and method mse, expected onnxruntime"),
        "{error}"
    );
    let mut empty = report;
    empty["target"] = json!("onnxruntime");
    let error = refused(&empty);
    assert!(error.message.starts_with("the sensitivities have no layer \""), "{error}");

    // A file that leaves nothing to quantize: the float model, with a warning.
    let chosen = bench.path("all.toml");
    std::fs::write(&chosen, "[params]\nfloat_layers = [\"*\"]\n").unwrap();
    let (_, model, said) = bench.insert("float", &chosen);
    assert!(model.graph.nodes.iter().all(|node| node.op_type != "QuantizeLinear"));
    assert!(said.of("warning")[0].contains("the model stays float"), "{:?}", said.of("warning"));
}

/// Layers in float are FP16 in both engines, so the float engine is built with it.
#[test]
fn tensorrt_engines_are_built_and_timed_by_trtexec() {
    let bench = Bench::new();
    let machine = Machine::new("ok");
    let keys = json!({"max_engines": 4, "batch": 8, "seconds": 0.003, "rounds": 3, "min_sqnr_db": 0.0, "flags": ["--tacticSources=-CUBLAS"]});
    let config = config("tensorrt", keys);
    let ended = machine.stage("search", "search", config, bench.inputs(), &OUTPUTS);
    assert_eq!(ended.failure, None, "{ended:?}");
    let calls = machine.calls();
    let has = |call: &String, flag: &str| call.split(' ').any(|word| word == flag);
    let builds: Vec<&String> = calls.iter().filter(|call| call.contains("--onnx=")).collect();
    let engines = ended.metrics["engines"].as_u64().unwrap() as usize;
    assert_eq!((engines, builds.len()), (4, 4), "{calls:?}");
    let float: Vec<&&String> = builds.iter().filter(|call| !has(call, "--int8")).collect();
    assert!(float.len() == 1 && builds.iter().all(|call| has(call, "--fp16")), "{builds:?}");
    assert!(builds.iter().all(|call| has(call, "--tacticSources=-CUBLAS")), "{builds:?}");
    let timed: Vec<&String> = calls.iter().filter(|call| call.contains("--loadEngine=")).collect();
    // Three rounds each time: of two engines, twice of one more with them, and of all four.
    assert_eq!(timed.len(), 3 * (2 + 3 + 3 + 4), "{timed:?}");
    assert!(timed.iter().all(|call| has(call, "--duration=0.001")), "{timed:?}");
    let pareto = Pareto::read(&machine.path("search/out/pareto.json")).unwrap();
    for candidate in &pareto.candidates {
        assert!((candidate.latency_ms.median - 0.253_975).abs() < 1e-9, "{candidate:?}");
    }
    assert!(!pareto.faster_than_float, "all took the recorded time");
    let slower = ended.warnings.iter().find(|line| line.contains("nowhere faster than float"));
    assert!(slower.unwrap().contains("with 75 % certainty"), "three rounds: {slower:?}");
}
