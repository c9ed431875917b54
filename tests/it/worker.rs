//! Stages that the worker does, with a worker that is a script: what it says, how it ends, when it
//! is started at all.

use std::process::Command;

use crate::project::{Project, Said};

/// A model from a command, exported by the worker.
const PIPELINE: &str = r#"
[stages.model]
kind = "command"
run = "echo model > $QPIPE_OUT_M"
outputs = { m = { file = "model.onnx", type = "model" } }

[stages.engine]
kind = "build-engine"
model = "model.m"
backend = "onnxruntime"
"#;

/// A project with a worker that says what `body` says; `$1` is the output's path. It notes in
/// `started` each time that it is started.
fn project(body: &str) -> Project {
    let project = Project::new(PIPELINE);
    project.write("libort.so", "a library");
    let script = format!(
        r#"#!/bin/sh
echo "$1" >> {folder}/started
case "$1" in
facts) cat {folder}/facts ;;
run)
    out=$(sed -n 's/.*"engine": "\(.*\/out\/.*\)".*/\1/p' "$2")
    set -- "$out" "$2"
    {body} ;;
esac
"#,
        folder = project.path("").display()
    );
    project.program("worker", &script);
    let facts = serde_json::json!({
        "facts": {"onnx-runtime": "libort.so 1.0"}, "files": [project.path("libort.so")],
    });
    project.write("facts", &facts.to_string());
    project
}

fn run(project: &Project) -> Said {
    project.said(with_worker(project, &mut project.command(&["run", "p.toml"])))
}

fn with_worker<'c>(project: &Project, command: &'c mut Command) -> &'c mut Command {
    command.env("QPIPE_WORKER", project.path("worker"))
}

fn started(project: &Project) -> Vec<String> {
    let started = project.read("started").lines().map(str::to_owned).collect();
    let _ = std::fs::remove_file(project.path("started"));
    started
}

const GOOD: &str = r#"mkdir "$1"; cp "$2" "$1/task.json"; echo {} > "$1/../layers.json"; echo log line >&2
    echo '{"event": "warning", "message": "careful"}'
    echo '{"event": "progress", "done": 1, "total": 2, "unit": "nodes", "message": ""}'
    echo '{"event": "done", "metrics": {"nodes": 3}}'"#;

#[test]
fn a_warning_of_a_key_has_its_line_while_the_stage_runs() {
    let of_key = r#""message": "careful", "key": "backend""#;
    let project = project(&GOOD.replace(r#""message": "careful""#, of_key));
    let said = run(&project);
    assert!(said.stderr.contains("engine: warning: p.toml:10: careful\n"), "{said:?}");
    // The line may be another one later.
    assert!(run(&project).stderr.contains("engine: warning: careful\n"));
}

/// Put over [`PIPELINE`].
const EXTENDING: &str = r#"extends = "base/b.toml"

[stages.engine]
verify = false
"#;

#[test]
fn a_failure_of_a_key_names_the_file_in_which_the_key_stands() {
    let said = |key: &str, more: &[&str]| {
        let failure = serde_json::json!({"blame": "user", "message": "it is old", "key": key});
        let event = serde_json::json!({"event": "failed", "failure": failure});
        let project = project(&format!("echo '{event}'; exit 1"));
        project.write("base/b.toml", PIPELINE);
        project.write("p.toml", EXTENDING);
        let mut command = project.command(&[&["run", "p.toml"], more].concat());
        let command = with_worker(&project, &mut command);
        project.said(command).stderr
    };
    let base = said("model", &[]);
    assert!(base.contains("stage engine failed: base/b.toml:9: it is old\n"), "{base}");
    let own = said("verify", &[]);
    assert!(own.contains("stage engine failed: p.toml:4: it is old\n"), "{own}");
    // One that is not written: the table that is put over the other.
    let default = said("opset", &[]);
    assert!(default.contains("stage engine failed: p.toml:3: it is old\n"), "{default}");
    let set = said("verify", &["--set", "stages.engine.verify=true"]);
    let told = "stage engine failed: --set stages.engine.verify=true: it is old\n";
    assert!(set.contains(told), "{set}");
}

#[test]
fn an_up_to_date_run_does_not_start_the_worker() {
    let project = project(GOOD);
    let said = run(&project);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("engine: warning: careful\nengine: done"), "{said:?}");
    assert_eq!(started(&project), ["facts", "run"]);
    let task: serde_json::Value =
        serde_json::from_str(&project.artifact("engine/engine/task.json")).unwrap();
    assert_eq!((&task["kind"], &task["stage"]), (&"build-engine".into(), &"engine".into()));
    assert!(task["inputs"]["model"]["path"].as_str().unwrap().ends_with("/in/model.onnx"));
    let again = run(&project);
    assert_eq!(again.stderr, "model: cached\nengine: cached\nengine: warning: careful\n");
    assert!(started(&project).is_empty());
    // Another library: the worker is asked again, and says the same.
    project.write("libort.so", "another library");
    run(&project);
    assert_eq!(started(&project), ["facts"]);
    let facts = project.read("facts").replace("1.0", "2.0");
    project.write("facts", &facts);
    project.write("libort.so", "a third library");
    let said = run(&project);
    assert!(said.stderr.contains("engine: running (onnx-runtime changed)"), "{said:?}");
    assert_eq!(started(&project), ["facts", "run"]);
}

#[test]
fn a_failure_of_the_worker_is_told_with_its_help_and_blame() {
    let failed = |blame: &str| {
        format!(
            r#"echo before >&2; echo '{{"event": "failed", "failure": {{"blame": "{blame}", "message": "node Conv_3: bad", "help": "mend it"}}}}'; exit 1"#
        )
    };
    for (blame, code) in [("user", 1), ("machine", 3), ("bug", 70)] {
        let project = project(&failed(blame));
        let said = run(&project);
        assert_eq!(said.code, Some(code));
        let expected = "\nlast lines of engine:\n  │ before\n\
                        \nerror: stage engine failed: node Conv_3: bad\n  help: mend it\n  \
                        log:  [DIR]/cache/logs/RUN/engine.log\n";
        assert!(said.stderr.contains(expected), "{said:?}");
    }
}

#[test]
fn a_worker_that_dies_without_a_word() {
    for (body, code, message) in [
        ("kill -9 $$", 3, "the worker was killed by signal 9 (SIGKILL) without saying why"),
        ("kill -11 $$", 70, "the worker was killed by signal 11 (SIGSEGV) without saying why"),
        ("exit 0", 70, "the worker ended with exit status 0 without saying why"),
        (r#"echo '{"event": "done", "metrics": {}}'"#, 70, "output `engine` was not written: "),
    ] {
        let said = run(&project(body));
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(
            said.stderr.contains(&format!("error: stage engine failed: {message}")),
            "{said:?}"
        );
    }
}

#[test]
fn a_missing_worker_and_a_fact_that_it_cannot_tell() {
    let project = project(GOOD);
    let mut command = project.command(&["run", "p.toml"]);
    let said = project.said(command.env("QPIPE_WORKER", "/nowhere/qpipe-worker"));
    assert_eq!(said.code, Some(3));
    assert!(
        said.stderr.contains("error: qpipe-worker is missing: /nowhere/qpipe-worker"),
        "{said:?}"
    );
    project.write("facts", r#"{"facts": {}}"#);
    let said = run(&project);
    assert_eq!(said.code, Some(3));
    let expected =
        "error: stage engine ([DIR]/p.toml:7) needs ONNX Runtime: the worker says nothing of it\n";
    assert!(said.stderr.starts_with(expected), "{said:?}");
}

/// Two engines of one model, for two runtimes, and another for one of them; each command notes that it ran.
const RUNTIMES: &str = r#"
[stages.model]
kind = "command"
run = "echo model >> ran; echo model > $QPIPE_OUT_M"
outputs = { m = { file = "model.onnx", type = "model" } }

[stages.engine]
kind = "build-engine"
model = "model.m"
backend = "onnxruntime"

[stages.trt]
kind = "build-engine"
model = "model.m"
backend = "tensorrt"

[stages.other]
kind = "build-engine"
model = "model.m"
backend = "tensorrt"
precision = "fp16"

[stages.after]
kind = "command"
run = "echo after >> ran; cp -r $QPIPE_IN_E $QPIPE_OUT_X"
inputs = { e = "trt.engine" }
outputs = { x = "x" }
"#;

/// With a worker that finds no trtexec.
fn without_trtexec(pipeline: &str) -> Project {
    let project = project(GOOD);
    project.write("p.toml", pipeline);
    let missing = serde_json::json!({"message": "no trtexec", "help": "install TensorRT"});
    let facts = serde_json::json!({
        "facts": {"onnx-runtime": "libort.so 1.0"}, "files": [], "missing": {"tensor-rt": missing},
    });
    project.write("facts", &facts.to_string());
    project
}

/// All facts, as if TensorRT had been installed.
const INSTALLED: &str = r#"{"facts": {"onnx-runtime": "libort.so 1.0", "tensor-rt": "10.3"}}"#;

const NEED: &str = "stage trt ([DIR]/p.toml:12) and 1 more need TensorRT (trtexec): no trtexec";

#[test]
fn what_is_missing_is_told_before_anything_runs() {
    let project = without_trtexec(RUNTIMES);
    let with =
        |arguments: &[&str]| project.said(with_worker(&project, &mut project.command(arguments)));
    let said = run(&project);
    assert_eq!(said.code, Some(3), "{said:?}");
    let expected = format!(
        "error: {NEED}\n  help: install TensorRT; `qpipe doctor` lists what is missing and how to \
         get it; --keep-going runs all that can do without\n"
    );
    assert_eq!(said.stderr, expected);
    assert_eq!(started(&project), ["facts"]);
    assert!(project.ran().is_empty());
    // What was not selected is nobody's business.
    let said = with(&["run", "p.toml", "engine"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(project.ran(), ["model"]);
    // The same where the model is there already: without the fact there is no key to look up.
    let said = run(&project);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert_eq!(
        said.stderr,
        format!("model: cached\nengine: cached\nengine: warning: careful\n{expected}")
    );
    // That it was missing is not remembered.
    project.write("facts", INSTALLED);
    let said = run(&project);
    assert_eq!((said.code, project.ran()), (Some(0), vec!["after".to_owned()]), "{said:?}");
    started(&project);
    run(&project);
    assert!(started(&project).is_empty());
}

/// A GPU beyond those that are there is told at once too, where the stage's turn comes last; by its own number.
#[test]
fn a_gpu_beyond_those_that_are_there_is_told_before_anything_runs() {
    let stage = |name: &str, device: &str| {
        format!(
            "[stages.{name}]\nkind = \"calibrate\"\nmodel = \"model.m\"\ndata = \"data.d\"\ndevice = \"{device}\"\n"
        )
    };
    let project = project("exit 1");
    std::fs::create_dir(project.path("images")).unwrap();
    project.write("images/a.png", "an image");
    let (model, _) = PIPELINE.trim_start().split_once("\n\n").unwrap();
    let model = model.replace("run = \"", "run = \"echo model >> ran; ");
    let data = "[data.d]\nformat = \"image-folder\"\npath = \"images\"\n";
    let stages: String =
        [("first", "cuda:1"), ("beyond", "cuda:7"), ("more", "cuda:7"), ("other", "cuda:2")]
            .map(|(name, device)| stage(name, device))
            .concat();
    project.write("p.toml", &format!("{model}\n{data}{stages}"));
    let beyond = |gpu: u32| serde_json::json!({"message": format!("device = \"cuda:{gpu}\" asks for GPU {gpu}, there are 2: cuda:0 to cuda:1")});
    let facts = serde_json::json!({
        "facts": {"libtorch-cuda": "2.11 on a card", "libtorch-cuda:1": "2.11 on a card"}, "files": [],
        "missing": {"libtorch-cuda:2": beyond(2), "libtorch-cuda:7": beyond(7)},
    });
    project.write("facts", &facts.to_string());
    let said = run(&project);
    assert_eq!(said.code, Some(3), "{said:?}");
    let there = "there are 2: cuda:0 to cuda:1";
    for text in [
        format!(
            "stage other ([DIR]/p.toml:23) needs libtorch on a GPU: device = \"cuda:2\" asks for GPU 2, {there}\n"
        ),
        format!(
            "stage beyond ([DIR]/p.toml:13) and 1 more need libtorch on a GPU: device = \"cuda:7\" asks for GPU 7, {there}\n"
        ),
    ] {
        assert!(said.stderr.contains(&text), "{text}{said:?}");
    }
    assert!(project.ran().is_empty(), "{said:?}");
    // On a machine that has them all runs.
    let names = ["libtorch-cuda:1", "libtorch-cuda:2", "libtorch-cuda:7"];
    let facts = names.map(|name| (name.to_owned(), "2.11 on a card".into()));
    let facts = serde_json::Map::from_iter(facts);
    project.write("facts", &serde_json::json!({"facts": facts}).to_string());
    std::fs::remove_file(project.path("cache/facts.json")).unwrap();
    let said = run(&project);
    assert!(said.code != Some(3) && !project.ran().is_empty(), "{said:?}");
}

#[test]
fn with_keep_going_what_is_missing_is_told_once_and_the_rest_runs() {
    let project = without_trtexec(RUNTIMES);
    let keep_going = || {
        let mut command = project.command(&["run", "p.toml", "--keep-going", "-j1"]);
        project.said(with_worker(&project, &mut command))
    };
    let said = keep_going();
    assert_eq!(said.code, Some(3), "{said:?}");
    let warning = format!("warning: {NEED}; they will fail, the others run\n");
    assert!(said.stderr.starts_with(&warning), "{said:?}");
    assert_eq!(said.stderr.matches("warning: stage").count(), 1, "{said:?}");
    for text in [
        "error: stage trt failed: stage trt ([DIR]/p.toml:12) needs TensorRT (trtexec): no trtexec\n  help: install TensorRT; ",
        "error: stage other failed: stage other ([DIR]/p.toml:17) needs TensorRT (trtexec): no trtexec\n",
        "after: skipped (trt failed)\n",
    ] {
        assert!(said.stderr.contains(text), "{text}{said:?}");
    }
    assert!(said.stdout.ends_with("2 ran, 0 cached, 2 failed, 1 not run in N s\n"), "{said:?}");
    assert_eq!(project.ran(), ["model"]);
    // At the start, and when the model was there: not for each stage.
    assert_eq!(started(&project), ["facts", "facts", "run"]);
    project.verify();
    // It is installed while the model is made.
    project.write("installed", INSTALLED);
    project.write("p.toml", &RUNTIMES.replace("echo model >> ran", "cp installed facts"));
    let said = keep_going();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains(&warning), "{said:?}");
    assert_eq!(project.ran(), ["after"]);
}

#[test]
fn a_worker_that_is_missing_is_told_before_anything_runs() {
    let project = project(GOOD);
    project.write("p.toml", &PIPELINE.replace("echo model >", "echo model >> ran; echo model >"));
    let mut command = project.command(&["run", "p.toml"]);
    let said = project.said(command.env("QPIPE_WORKER", "/nowhere/qpipe-worker"));
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.starts_with("error: qpipe-worker is missing: "), "{said:?}");
    assert!(project.ran().is_empty());
}

/// Tasks and records are JSON, which cannot name it: it was a panic, of a pipeline file when all stages had run.
#[test]
fn a_path_that_is_not_utf8_is_told_before_anything_runs() {
    use std::os::unix::ffi::OsStrExt;
    let project = project(GOOD);
    let odd = project.path("").join(std::ffi::OsStr::from_bytes(b"odd \xff"));
    let mut command = project.command(&["run", "p.toml"]);
    let of_cache = project.said(with_worker(&project, &mut command).env("QPIPE_CACHE", &odd));
    std::fs::create_dir_all(&odd).unwrap();
    std::fs::copy(project.path("p.toml"), odd.join("p.toml")).unwrap();
    let mut command = project.command(&["run"]);
    let of_file = project.said(with_worker(&project, command.arg(odd.join("p.toml"))));
    for (said, help) in [(of_cache, "--cache or QPIPE_CACHE"), (of_file, "rename the folder")] {
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("odd \\xFF"), "{said:?}");
        assert!(said.stderr.contains("is not UTF-8") && said.stderr.contains(help), "{said:?}");
        assert!(!said.stderr.contains("model: done"), "{said:?}");
    }
}
