//! `qpipe why`: old and new values of all that changed.

use serde_json::Value;

use crate::project::{Project, without_runs};

const PIPELINE: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "cat $QPIPE_IN_SRC > $QPIPE_OUT_X"
files = { src = "src.txt" }
outputs = { x = "x.txt" }

[stages.b]
kind = "command"
run = "echo $WORD > $QPIPE_OUT_X"
inputs = { x = "a" }
env = { WORD = "${params.word}" }
outputs = { x = "x.txt" }
"#;

#[test]
fn what_changed_is_shown_with_old_and_new_values() {
    let project = Project::new(PIPELINE);
    project.write("src.txt", "abc");
    let why = |stages: &[&str]| {
        let said = project.qpipe(&[&["why", "p.toml"], stages].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        without_runs(&said.stdout)
    };
    assert_eq!(
        why(&["a", "b"]),
        "a: runs: never ran\nb: may run: depends on a\n  a runs: never ran\n"
    );
    assert!(!project.path("cache").exists(), "it writes nothing");
    project.run(&[]);
    // The first 12 digits of SHA-256 of `abc`, in two places.
    let made = "  ran in run RUN: never ran\n  made from\n    \
                INPUT: ba7816bf8f01\n    seed: 0\n";
    assert_eq!(
        why(&["b"]),
        format!("b: up to date\n  last success:\n{}", made.replace("INPUT", "input x (from a)"))
    );
    let word = ["b", "--set", "params.word=two"];
    assert_eq!(
        why(&word),
        "b: runs, since its last success\n  env.WORD: one → two\n  last success:\n"
    );
    let seed = ["a", "--set", "pipeline.seed=7"];
    assert_eq!(why(&seed), "a: runs, since its last success\n  seed: 0 → 7\n  last success:\n");
    project.write("src.txt", "abcd");
    assert_eq!(
        why(&["a", "b", "--set", "params.word=two"]),
        "a: runs, since its last success\n  file src.txt changed: ba7816bf8f01 → 88d4266fd4e6\n  last success:\n\
         b: may run: depends on a\n  env.WORD: one → two\n  a runs: file src.txt changed\n  last success:\n"
    );
    let said = project.qpipe(&["why", "p.toml", "a", "--json", "--exit-code"]);
    assert_eq!(said.code, Some(10));
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    let stage = &json["stages"][0];
    assert_eq!(stage["action"], "run");
    assert_eq!(stage["since"], "success");
    assert_eq!(stage["changes"][0]["new"], "88d4266fd4e6");
    assert!(stage["last"]["started"].as_str().unwrap().starts_with("20"));
    project.run(&[]);
    assert_eq!(project.qpipe(&["why", "p.toml", "a", "--exit-code"]).code, Some(0));
    // What changed then is still known now, and the one behind it.
    assert_eq!(
        why(&["a", "b"]),
        "a: up to date\n  last success:\n  ran in run RUN, since the success before\n    \
         file src.txt changed: ba7816bf8f01 → 88d4266fd4e6\n  made from\n    \
         file src.txt: 88d4266fd4e6\n    seed: 0\n\
         b: up to date\n  last success:\n  ran in run RUN, since the success before\n    \
         input x changed (from a): ba7816bf8f01 → 88d4266fd4e6\n  made from\n    \
         input x (from a): 88d4266fd4e6\n    seed: 0\n"
    );
}

#[test]
fn a_changed_input_leads_to_the_reason_of_the_stage_that_gave_it() {
    let project = Project::new(PIPELINE);
    project.write("src.txt", "abc");
    project.run(&[]);
    project.write("src.txt", "abcd");
    project.run(&["a"]);
    let said = project.qpipe(&["why", "p.toml", "b"]);
    assert_eq!(
        without_runs(&said.stdout),
        "b: runs, since its last success\n  input x changed (from a): ba7816bf8f01 → 88d4266fd4e6\n  \
         a ran in run RUN: file src.txt changed\n  last success:\n"
    );
}

#[test]
fn failed_and_left_out_stages_say_so() {
    let fails =
        PIPELINE.replace("\"cat $QPIPE_IN_SRC", "\"echo no && test -e ok && cat $QPIPE_IN_SRC");
    let project = Project::new(&fails);
    project.write("src.txt", "abc");
    assert_eq!(project.qpipe(&["run", "p.toml"]).code, Some(1));
    let said = project.qpipe(&["why", "p.toml", "a", "b"]);
    assert_eq!(
        without_runs(&said.stdout),
        "a: runs: never ran\n  last time, in run RUN: failed: `echo no && test -e ok && cat \
         $QPIPE_IN_SRC > $QPIPE_OUT_X` ended with exit status 1\n    \
         log: [DIR]/cache/logs/RUN/a.log\n\
         b: may run: depends on a\n  a runs: never ran\n  \
         last time, in run RUN: did not run, because a failed\n"
    );
    project.write("ok", "");
    project.run(&[]);
    assert!(!project.qpipe(&["why", "p.toml", "a"]).stdout.contains("last time"));
}

#[test]
fn files_of_a_folder_that_changed_are_counted_and_named() {
    let pipeline =
        PIPELINE.replace("src.txt", "src").replace("cat $QPIPE_IN_SRC", "ls $QPIPE_IN_SRC");
    let project = Project::new(&pipeline);
    for name in ["a", "b", "below/c"] {
        project.write(&format!("src/{name}"), name);
    }
    project.run(&[]);
    project.write("src/b", "other");
    project.write("src/d", "new");
    std::fs::remove_file(project.path("src/below/c")).unwrap();
    let counts = "(1 file changed, 1 added, 1 removed";
    let why = project.qpipe(&["why", "p.toml", "a"]).stdout;
    assert!(why.contains(&format!("{counts}: ~ b, - below/c, + d)\n")), "{why}");
    let run = project.run(&[]).stderr;
    assert!(run.contains(&format!("a: running (file src changed {counts}))\n")), "{run}");
    // The run's record knows them, although the index has moved on.
    let why = project.qpipe(&["why", "p.toml", "a"]).stdout;
    assert!(why.contains(&format!("{counts}: ~ b, - below/c, + d)\n")), "{why}");
}

#[test]
fn what_stands_at_two_inputs_changed_once() {
    let twice = PIPELINE
        .replace("src = \"src.txt\"", "src = \"src\", again = \"src\"")
        .replace("cat $QPIPE_IN_SRC", "ls $QPIPE_IN_SRC $QPIPE_IN_AGAIN");
    let project = Project::new(&twice);
    project.write("src/a", "a");
    project.run(&[]);
    project.write("src/a", "other");
    let why = project.qpipe(&["why", "p.toml", "a"]).stdout;
    assert_eq!(why.matches("file src changed").count(), 1, "{why}");
    let run = project.run(&[]).stderr;
    assert!(run.contains("a: running (file src changed (1 file changed))\n"), "{run}");
}

/// A model from a command, exported by a worker that is a script.
const ENGINE: &str = r#"
[stages.model]
kind = "command"
run = "echo model > $QPIPE_OUT_M"
outputs = { m = { file = "model.onnx", type = "model" } }

[stages.engine]
kind = "build-engine"
model = "model.m"
backend = "onnxruntime"
"#;

fn engine() -> Project {
    let project = Project::new(ENGINE);
    let script = format!(
        r#"#!/bin/sh
case "$1" in
facts) cat {}/facts ;;
run)
    out=$(sed -n 's/.*"engine": "\(.*\/out\/.*\)".*/\1/p' "$2")
    mkdir "$out"; echo engine > "$out/e"; echo {{}} > "$out/../layers.json"
    echo '{{"event": "done", "metrics": {{}}}}' ;;
esac
"#,
        project.path("").display()
    );
    project.program("worker", &script);
    project.write("facts", r#"{"facts": {"onnx-runtime": "ort 1.0"}, "files": []}"#);
    project
}

#[test]
fn a_miss_on_another_machine_is_explained_by_the_lock_file() {
    let project = engine();
    let with = |worker: &str, arguments: &[&str]| {
        project.said(project.command(arguments).env("QPIPE_WORKER", project.path(worker)))
    };
    assert_eq!(with("worker", &["run", "p.toml"]).code, Some(0));
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    // Another machine has another library.
    project.write("facts", r#"{"facts": {"onnx-runtime": "ort 2.0"}, "files": []}"#);
    let why = with("worker", &["why", "p.toml", "engine"]);
    assert_eq!(
        why.stdout,
        "engine: may run: depends on model\n  onnx-runtime: ort 1.0 → ort 2.0\n  \
         model runs: never ran here; the lock file knows its result\n"
    );
    assert!(!project.path("cache").exists());
    with("worker", &["run", "p.toml", "model"]);
    let why = with("worker", &["why", "p.toml", "engine"]);
    assert_eq!(
        why.stdout,
        "engine: runs, other than in the lock file\n  onnx-runtime: ort 1.0 → ort 2.0\n"
    );
}

#[test]
fn a_machine_without_the_worker_can_look_all_the_same() {
    let project = engine();
    let missing = |arguments: &[&str]| {
        let said =
            project.said(project.command(arguments).env("QPIPE_WORKER", project.path("none")));
        assert_eq!((said.code, said.stderr.as_str()), (Some(10), ""), "{said:?}");
        said.stdout
    };
    project.run(&["model"]);
    let needs = "needs qpipe-worker to tell ONNX Runtime";
    let plan = missing(&["plan", "p.toml", "--exit-code"]);
    assert_eq!(
        plan,
        format!(
            "model   cached\nengine  unknown (?): {needs}\n\
             1 cached, 0 to run, 0 that may run, 1 unknown\n\
             time: unknown, none of these stages has run yet\n"
        )
    );
    let status = missing(&["status", "p.toml", "--exit-code"]);
    assert!(status.contains(&format!("engine  unknown: {needs}\n1 up to date, 1 unknown\n")));
    let why = missing(&["why", "p.toml", "engine", "--exit-code"]);
    assert_eq!(why, format!("engine: unknown: {needs}\n"));
    // With a worker, and without the library: what waits for others says so too, as the worker was asked anyway.
    let again = ENGINE.replace("[stages.engine]", "[stages.more]").replace("model.m", "other.m");
    let again =
        again.replace("[stages.model]", "[stages.other]").replace("echo model", "echo other");
    project.write("p.toml", &format!("{ENGINE}{again}"));
    project.write("facts", r#"{"facts": {}, "missing": {"onnx-runtime": {"message": "none"}}}"#);
    let mut command = project.command(&["plan", "p.toml"]);
    let plan = project.said(command.env("QPIPE_WORKER", project.path("worker")));
    let needs = "needs ONNX Runtime, which is missing here";
    for line in [
        format!("engine  unknown (?): {needs}\n"),
        format!("may run (?): depends on other; {needs}\n"),
    ] {
        assert!(plan.stdout.contains(&line), "{line}{plan:?}");
    }
}

#[test]
fn a_stage_that_is_not_there_is_refused() {
    let project = Project::new(PIPELINE);
    project.write("src.txt", "abc");
    let said = project.qpipe(&["why", "p.toml", "c"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("no stage is named `c`"), "{said:?}");
}
