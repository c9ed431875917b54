//! What the runner makes of a sound file: cells, references, parameters, and how stages are run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use qpipe::config::{Bound, Mistakes, Origin, Overrides, Pipeline, RemoteMode, StageCell};
use qpipe::stages::contract::{Demand, PortType};
use qpipe::stages::execution::{Execution, Resources};

use crate::check::{folder, qpipe, text, text_of};

/// The pipelines of this project, beside the files that they name.
pub fn shipped() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("qpipe-").tempdir().unwrap();
    let pipelines = folder.path().join("pipelines");
    let data = folder.path().join(".deps/data/fashion-mnist");
    fs::create_dir_all(&pipelines).unwrap();
    fs::create_dir_all(&data).unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")).unwrap() {
        let entry = entry.unwrap();
        // Runs leave lock files and folders there.
        let is_ours = entry.path().extension().is_some_and(|end| end == "toml" || end == "py");
        if is_ours {
            fs::copy(entry.path(), pipelines.join(entry.file_name())).unwrap();
        }
    }
    fs::write(folder.path().join("net.onnx"), "").unwrap();
    for part in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        fs::write(data.join(format!("{part}-ubyte.gz")), "").unwrap();
    }
    for class in ["train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"] {
        fs::create_dir_all(folder.path().join("xray").join(class)).unwrap();
    }
    folder
}

fn load(folder: &Path, name: &str, set: &[&str]) -> Result<Pipeline, Mistakes> {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    let env = [("XRAY", "../xray"), ("YOLO_ONNX", "../net.onnx"), ("YOLO_IMAGES", "../xray/test")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let overrides = Overrides { set, env, ..Overrides::default() };
    qpipe::config::load(&folder.join("pipelines").join(name), &overrides)
}

fn cell<'p>(pipeline: &'p Pipeline, id: &str) -> &'p StageCell {
    pipeline.stages.iter().find(|cell| cell.id == id).unwrap_or_else(|| panic!("no `{id}`"))
}

fn stage_port(id: &str, port: &str, kind: PortType) -> Origin {
    Origin::Stage { id: id.to_owned(), port: port.to_owned(), kind }
}

#[test]
fn every_shipped_pipeline_is_sound() {
    let folder = shipped();
    let files = fs::read_dir(folder.path().join("pipelines")).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // A choice of layers is for another file's `exclude_from`.
    let names = names.filter(|name| name.ends_with(".toml") && !name.ends_with(".layers.toml"));
    let mut count = 0;
    for name in names {
        let pipeline = load(folder.path(), &name, &[]);
        let pipeline = pipeline.unwrap_or_else(|mistakes| panic!("{name}: {mistakes:?}"));
        assert!(!pipeline.stages.is_empty(), "{name}");
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn the_example_of_ranges_of_ones_own_is_sound() {
    let folder = shipped();
    let pipeline = load(folder.path(), "custom_ranges.toml", &[]).unwrap();
    let ranges = |id: &str| cell(&pipeline, id).inputs.iter().find(|i| i.port == "ranges").unwrap();
    assert_eq!(ranges("ptq[custom]").origin, stage_port("ranges", "ranges", PortType::Ranges));
}

#[test]
fn ranges_may_be_a_file() {
    let folder = tempfile::Builder::new().prefix("qpipe-").tempdir().unwrap();
    fs::create_dir_all(folder.path().join("pipelines")).unwrap();
    for name in ["model.onnx", "ranges.json"] {
        fs::write(folder.path().join("pipelines").join(name), "").unwrap();
    }
    let write = |ranges: &str, stage: &str| {
        let text = format!(
            "[stages.ptq]\nkind = \"insert-qdq\"\nmodel = {{ onnx = \"model.onnx\" }}\nranges = {ranges}\nmethod = \"custom\"\ntarget = \"tensorrt\"\n{stage}"
        );
        fs::write(folder.path().join("pipelines/a.toml"), text).unwrap();
        load(folder.path(), "a.toml", &[])
    };
    let pipeline = write("{ file = \"ranges.json\" }", "").unwrap();
    let input = cell(&pipeline, "ptq").inputs.iter().find(|i| i.port == "ranges").unwrap();
    assert!(matches!(&input.origin, Origin::Path(path) if path.ends_with("ranges.json")));
    assert!(write("{ file = \"missing.json\" }", "").is_err());
    let calibrate = "[data.d]\nformat = \"image-folder\"\npath = \".\"\n[stages.c]\nkind = \"calibrate\"\nmodel = { onnx = \"model.onnx\" }\ndata = \"data.d\"\nmethods = [\"custom\"]\n";
    assert!(write("\"c.ranges\"", calibrate).is_err());
    let output = qpipe(&folder.path().join("pipelines"), &["check", "a.toml"]);
    let mistakes = text(&output.stderr);
    assert!(mistakes.contains("`custom` is not computed"), "{mistakes}");
}

/// The layers that a `search` stage chose, as they are committed in `pipelines/`: of the stage, of the file, and of a file that is extended.
#[test]
fn layers_that_a_search_chose_are_used_with_and_without_it() {
    let folder = shipped();
    let pipeline = load(folder.path(), "mixed_precision.toml", &[]).unwrap();
    let from = |pipeline: &Pipeline, id: &str| {
        let inputs = &cell(pipeline, id).inputs;
        inputs.iter().find(|i| i.port == "exclude_from").map(|input| input.origin.clone())
    };
    assert_eq!(from(&pipeline, "mixed"), Some(stage_port("search", "chosen", PortType::File)));
    assert_eq!(cell(&pipeline, "search").stage.demand(), Demand::Alone);

    let write = |name: &str, first: &str, exclude: &str| {
        let text = format!(
            "{first}\n[stages.mixed]\nkind = \"insert-qdq\"\nmodel = {{ onnx = \"model.onnx\" }}\nranges = {{ file = \"ranges.json\" }}\ntarget = \"onnxruntime\"\n{exclude}\n"
        );
        fs::write(folder.path().join("pipelines").join(name), text).unwrap();
        load(folder.path(), name, &[]).unwrap()
    };
    for name in ["model.onnx", "ranges.json"] {
        fs::write(folder.path().join("pipelines").join(name), "").unwrap();
    }
    let chosen = "mixed_precision.layers.toml";
    let file = write("file.toml", "", &format!("exclude_from = {{ file = \"{chosen}\" }}"));
    assert!(matches!(from(&file, "mixed"), Some(Origin::Path(path)) if path.ends_with(chosen)));
    let extended = write(
        "extended.toml",
        &format!("extends = \"{chosen}\""),
        "exclude = \"${params.float_layers}\"",
    );
    let exclude = &cell(&extended, "mixed").stage.config()["exclude"];
    let text = fs::read_to_string(folder.path().join("pipelines").join(chosen)).unwrap();
    let layers = text.lines().filter(|line| line.starts_with("    \"")).count();
    assert!(layers > 0 && exclude.as_array().unwrap().len() == layers, "{exclude}");
    let output = qpipe(&folder.path().join("pipelines"), &["check", "extended.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
}

#[test]
fn cells_references_and_the_reports_inputs_are_resolved() {
    let folder = shipped();
    let pipeline = load(folder.path(), "quickstart.toml", &[]).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("quickstart", 1));
    let ptq = cell(&pipeline, "onnx[ptq[max]]");
    assert_eq!(ptq.cell, [("variant".to_owned(), "ptq[max]".into())]);
    assert_eq!(ptq.inputs[0].origin, stage_port("ptq[max]", "model", PortType::Model));
    let ranges = cell(&pipeline, "ptq[mse]").inputs.iter().find(|input| input.port == "ranges");
    assert_eq!(ranges.unwrap().origin, stage_port("ranges", "ranges", PortType::Ranges));
    let report = cell(&pipeline, "report");
    let ids = report.inputs.iter().map(|input| match &input.origin {
        Origin::Stage { id, port, kind: PortType::Metrics } if port == "metrics" => id.as_str(),
        other => panic!("{other:?}"),
    });
    let ids: Vec<&str> = ids.collect();
    assert_eq!(ids.len(), 18);
    assert_eq!((ids[0], ids[6], ids[17]), ("simulated[fp32]", "measured[fp32]", "bench[qat]"));
    assert_eq!(report.inputs[17].port, "from.17");
    assert_eq!(pipeline.data["train"].paths.len(), 2, "images and labels");
}

#[test]
fn parameters_keep_their_types() {
    let folder = shipped();
    let pipeline = load(folder.path(), "resnet50_qat.toml", &[]).unwrap();
    let config = cell(&pipeline, "fp32").stage.config();
    assert_eq!(config["optimizer"]["lr"], 1e-4);
    assert_eq!(config["epochs"], 5);
    let onnx = cell(&pipeline, "onnx[qat,32]");
    assert_eq!(onnx.stage.config()["batch"], 32);
    assert_eq!(onnx.cell[1], ("batch".to_owned(), 32.into()));
    let origin = &cell(&pipeline, "engine[ptq,1]").inputs[0].origin;
    assert_eq!(*origin, stage_port("onnx[ptq,1]", "model", PortType::Model));
    assert!(pipeline.data["train"].paths["path"].ends_with("xray/train"));
}

#[test]
fn cells_are_excluded_and_included() {
    let folder = folder();
    let pipeline = r#"
[params]
none = { batch = 32, variant = "fp32" }
[stages.x]
kind    = "command"
matrix  = { variant = ["fp32", "qat"], batch = [1, 32], exclude = ["${params.none}", { batch = 32, variant = "fp32" }, { batch = 1 }], include = [{ batch = 8, variant = "fp32" }, { variant = "qat", batch = 1 }] }
run     = "echo ${matrix.variant} ${matrix.batch}"
outputs = { out = "out" }
[stages.y]
kind    = "command"
run     = "true"
inputs  = { a = "x[fp32,8]", b = "x[qat,1]" }
outputs = { out = "out" }
"#;
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let overrides = Overrides::default();
    let pipeline = qpipe::config::load(&folder.path().join("p.toml"), &overrides).unwrap();
    let ids: Vec<&str> = pipeline.stages.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(ids, ["x[qat,32]", "x[fp32,8]", "x[qat,1]", "y"]);
    let added = cell(&pipeline, "x[fp32,8]");
    assert_eq!(added.stage.config()["run"], "echo fp32 8");
    assert_eq!(added.cell, [("variant".to_owned(), "fp32".into()), ("batch".to_owned(), 8.into())]);
}

/// An empty list of a parameter takes a stage out of the pipeline, and what reads it by the same parameter.
#[test]
fn a_parameter_leaves_stages_out() {
    let folder = shipped();
    let names = |set: &[&str]| -> Vec<String> {
        let pipeline = load(folder.path(), "resnet50_qat.toml", set).unwrap();
        pipeline.stages.iter().map(|cell| cell.id.clone()).collect()
    };
    let (all, fewer) = (names(&[]), names(&["params.fp16=[]"]));
    let of_fp16: Vec<&String> = all.iter().filter(|id| !fewer.contains(id)).collect();
    assert_eq!(
        of_fp16,
        [
            "engine_fp16[fp16,1]",
            "engine_fp16[fp16,32]",
            "bench_fp16[fp16,1]",
            "bench_fp16[fp16,32]"
        ]
    );
    assert_eq!(all.len(), fewer.len() + 4);
}

#[test]
fn overrides_reach_values_lists_and_new_keys() {
    let folder = shipped();
    let set = [
        "params.epochs=7",
        "params.variants=[\"fp32\", 'qat']",
        "stages.fp32.optimizer.lr = 0.5",
        "stages.fp32.label_smoothing=0.1",
        "stages.report.title=\"A study, 1=1\"",
        "stages.report.labels.\"a.b\"=both",
        "data.test.transform.0.normalize.mean.0=0.25",
        "pipeline.name=other",
    ];
    let pipeline = load(folder.path(), "resnet50_qat.toml", &set).unwrap_err();
    assert_eq!(
        pipeline.codes().collect::<Vec<_>>(),
        ["qpipe::config::override"],
        "the first transform is `resize`"
    );
    let set = set.map(|text| text.replace("transform.0", "transform.1"));
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let pipeline = load(folder.path(), "resnet50_qat.toml", &set).unwrap();
    assert_eq!(pipeline.name, "other");
    let fp32 = cell(&pipeline, "fp32").stage.config();
    assert_eq!((&fp32["epochs"], &fp32["label_smoothing"]), (&7.into(), &0.1.into()));
    assert_eq!(fp32["optimizer"]["lr"], 0.5);
    let report = cell(&pipeline, "report").stage.config();
    assert_eq!(report["title"], "A study, 1=1");
    assert_eq!(report["labels"]["a.b"], "both");
    assert_eq!(pipeline.stages.iter().filter(|cell| cell.name == "onnx").count(), 4);
}

#[test]
fn references_in_strings_are_written_out() {
    let folder = folder();
    let pipeline = r#"
[params]
n    = 3
f    = 1.0
half = "${params.n}.5"
[stages.x]
kind    = "command"
matrix  = { v = ["a[1,2]", true, 0.5] }
run     = ["echo", "${matrix.v}", "$${params.n}", "$$", "${env.XRAY}/${params.half}"]
env     = { D = "${env.NONE:-d}", E = "${env.EMPTY:-e}", F = "<${params.f}${env.NONE:-}>" }
outputs = { out = "out" }
[stages.y]
kind    = "command"
run     = "true"
inputs  = { z = "x[a[1,2]].out" }
outputs = { out = "out" }
"#;
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let env = [("XRAY", "x"), ("EMPTY", "")].map(|(name, value)| (name.into(), value.into()));
    let overrides = Overrides { env: env.into(), ..Overrides::default() };
    let pipeline = qpipe::config::load(&folder.path().join("p.toml"), &overrides).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("p", 0));
    let ids: Vec<&str> = pipeline.stages.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(ids, ["x[a[1,2]]", "x[true]", "x[0.5]", "y"]);
    let config = pipeline.stages[2].stage.config();
    assert_eq!(config["run"], serde_json::json!(["echo", "0.5", "${params.n}", "$$", "x/3.5"]));
    assert_eq!(config["env"], serde_json::json!({ "D": "d", "E": "e", "F": "<1.0>" }));
    let origin = &pipeline.stages[3].inputs[0].origin;
    assert_eq!(*origin, stage_port("x[a[1,2]]", "out", PortType::File));
}

#[test]
fn how_a_stage_is_run_is_read_and_no_part_of_its_configuration() {
    let folder = folder();
    let pipeline = r#"
[params]
time = "2 h"
[stages.x]
kind      = "command"
matrix    = { gpus = [0.5, 2] }
run       = "true"
outputs   = { out = "out" }
resources = { cpus = 4, memory = "8 GB", gpus = "${matrix.gpus}" }
timeout   = "${params.time}"
retries   = 2
exclusive = true
[stages.plain]
kind    = "command"
run     = "true"
outputs = { out = "out" }
"#;
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let pipeline =
        qpipe::config::load(&folder.path().join("p.toml"), &Overrides::default()).unwrap();
    let execution = &cell(&pipeline, "x[2]").execution;
    let resources = Resources { cpus: Some(4.0), memory: Some(8_000_000_000), gpus: Some(2.0) };
    assert_eq!(execution.resources, Some(resources));
    assert_eq!(execution.timeout, Some(Duration::from_secs(7_200)));
    assert_eq!((execution.retries.count, execution.exclusive), (2, Some(true)));
    let plain = cell(&pipeline, "plain");
    assert_eq!(plain.execution, Execution::default());
    assert_eq!(cell(&pipeline, "x[0.5]").stage.config(), plain.stage.config());
    assert_eq!(plain.stage.demand(), Demand::Light);
    assert_eq!(qpipe::stages::kind("train").unwrap().demand, Demand::Whole);
    assert_eq!(qpipe::stages::kind("benchmark").unwrap().demand, Demand::Alone);
}

#[test]
fn a_remote_and_guards_are_read() {
    let folder = folder();
    let pipeline = r#"
[stages.figures]
kind    = "command"
matrix  = { v = ["x[1]", 2] }
run     = "true"
outputs = { figures = { file = "figures.json", type = "metrics" } }
[stages.one]
kind    = "evaluate"
model   = { onnx = "model.onnx" }
data    = "data.train"
[data.train]
format  = "image-folder"
path    = "images"
[guards.latency]
metric             = "figures[x[1]].latency.median"
max_growth_percent = 5
max                = 20.5
[guards.top1]
metric   = "one.top1"
max_drop = 0.01
[remote]
url = "${env.XRAY}/store"
"#;
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let env = BTreeMap::from([("XRAY".to_owned(), "../xray".to_owned())]);
    let load = |set: &[&str]| {
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        let overrides = Overrides { set, env: env.clone(), ..Overrides::default() };
        qpipe::config::load(&folder.path().join("p.toml"), &overrides).unwrap()
    };
    let pipeline = load(&[]);
    let [latency, top1] = pipeline.guards.as_slice() else { panic!("{:?}", pipeline.guards) };
    assert_eq!((latency.name.as_str(), latency.line), ("latency", 14));
    assert_eq!(latency.stage, "figures[x[1]]");
    assert_eq!(latency.metric, "latency.median");
    assert_eq!(latency.bounds, [Bound::MaxGrowthPercent(5.0), Bound::Max(20.5)]);
    assert_eq!((top1.stage.as_str(), top1.metric.as_str()), ("one", "top1"));
    assert_eq!(top1.bounds, [Bound::MaxDrop(0.01)]);
    let remote = pipeline.remote.unwrap();
    let store = folder.path().join("../xray/store");
    assert_eq!((remote.url, remote.mode), (store.display().to_string(), RemoteMode::ReadWrite));
    let set = ["remote.url=s3://bucket/prefix", "remote.mode=read-only"];
    let remote = load(&set).remote.unwrap();
    assert_eq!((remote.url.as_str(), remote.mode), ("s3://bucket/prefix", RemoteMode::ReadOnly));
}

#[test]
fn a_secret_stays_a_name() {
    let folder = folder();
    let pipeline = r#"
[params]
who = "me"
[stages.x]
kind    = "command"
run     = "true"
env     = { A = "${secret.B}", C = "${params.who}:${secret.D}:${secret.B}", E = "$${secret.F}" }
outputs = { out = "out" }
[stages.y]
kind    = "command"
run     = "true"
env     = { PLAIN = "plain" }
outputs = { out = "out" }
"#;
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let env = BTreeMap::from([("B".to_owned(), "value".to_owned())]);
    let overrides = Overrides { env, ..Overrides::default() };
    let pipeline = qpipe::config::load(&folder.path().join("p.toml"), &overrides).unwrap();
    let x = cell(&pipeline, "x");
    assert_eq!(x.secrets, ["B", "D"]);
    let env = serde_json::json!({
        "A": "${secret.B}", "C": "me:${secret.D}:${secret.B}", "E": "${secret.F}"
    });
    assert_eq!(x.stage.config()["env"], env);
    assert_eq!(qpipe::config::secrets::missing(x), ["B", "D"], "of this process's environment");
    assert!(cell(&pipeline, "y").secrets.is_empty());
}
