//! Workers that write garbage, too much, or never end.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use super::events::strays;
use crate::project::{Project, signal, wait_for};

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

/// A worker that does `body` for a stage; `facts` for what it is asked before.
fn project(facts: &str, body: &str) -> Project {
    let project = Project::new(PIPELINE);
    project.write("libort.so", "a library");
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in\nfacts) {facts} ;;\nrun)\nout=$(sed -n 's/.*\"engine\": \"\\(.*\\/out\\/.*\\)\".*/\\1/p' \"$2\")\n{body}\n;;\nesac\n"
    );
    project.program("worker", &script);
    let facts = serde_json::json!({
        "facts": {"onnx-runtime": "libort.so 1.0"}, "files": [project.path("libort.so")],
    });
    project.write("facts", &facts.to_string());
    project
}

const FACTS: &str = "cat \"${0%worker}facts\"";

fn start(project: &Project) -> Child {
    let mut command = project.command(&["run", "p.toml"]);
    let file = |name: &str| std::fs::File::create(project.path(name)).unwrap();
    command.env("QPIPE_WORKER", project.path("worker"));
    command.stdout(file("out")).stderr(file("err")).spawn().unwrap()
}

/// Waits for a run; also the most memory that it had, bytes.
fn end(child: &Child) -> (ExitStatus, i64) {
    let (mut status, pid) = (0, child.id().cast_signed());
    // SAFETY: zeros are a valid `rusage`; it holds numbers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types; nobody else waits for the child.
    let ended = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(ended, pid);
    (ExitStatus::from_raw(status), usage.ru_maxrss * 1024)
}

/// What makes the stage's output, and the worker's last word.
const GOOD: &str = "mkdir \"$out\"; echo {} > \"$out/../layers.json\"; echo '{\"event\": \"done\", \"metrics\": {}}'";

/// The most memory that the runner may need, whatever it is told.
const MEMORY: i64 = 200 << 20;

fn check(what: &str, facts: &str, body: &str, code: i32, message: &str) {
    let project = project(facts, body);
    let (status, memory) = end(&start(&project));
    let err = std::fs::read(project.path("err")).unwrap();
    let err = String::from_utf8_lossy(&err[err.len().saturating_sub(1 << 16)..]).into_owned();
    assert_eq!(status.code(), Some(code), "{what}: {status} {err}");
    assert!(err.contains(message) && !err.contains("panicked"), "{what}: {err}");
    assert!(memory < MEMORY, "{what}: {memory} bytes");
    // There is none where the run ended before anything began.
    let journal = std::fs::metadata(project.path("cache/journal")).map_or(0, |file| file.len());
    assert!(journal < 1 << 18, "{what}: a journal of {journal} bytes");
    assert!(strays(&project).is_empty(), "{what}: {:?}", strays(&project));
    project.verify();
}

#[test]
fn garbage_is_a_line_of_the_log() {
    let says = |line: &str| format!("echo '{line}'\n{GOOD}");
    for (what, line) in [
        ("no such event", r#"{"event": "no such event", "x": 1}"#),
        ("NaN", r#"{"event": "progress", "done": NaN, "total": NaN, "unit": "x", "message": ""}"#),
        (
            "huge",
            r#"{"event": "progress", "done": 1e999, "total": 18446744073709551616, "unit": "x", "message": ""}"#,
        ),
        (
            "negative",
            r#"{"event": "progress", "done": -5, "total": -1, "unit": "x", "message": ""}"#,
        ),
        (
            "more than all",
            r#"{"event": "progress", "done": 18446744073709551615, "total": 1, "unit": "x", "message": ""}"#,
        ),
        ("no object", "[[[[]]]]"),
        ("half", r#"{"event": "done", "metr"#),
    ] {
        check(what, FACTS, &says(line), 0, "engine: done");
    }
    let deep =
        format!("awk 'BEGIN {{ for (i = 0; i < 200000; i++) printf \"[\"; print \"\" }}'\n{GOOD}");
    check("deep", FACTS, &deep, 0, "engine: done");
    check(
        "binary",
        FACTS,
        &format!("head -c 3000000 /dev/urandom\necho\n{GOOD}"),
        0,
        "engine: done",
    );
}

#[test]
fn too_much_is_no_harm() {
    let endless = format!("head -c 50000000 /dev/zero | tr '\\0' x; echo\n{GOOD}");
    check("a line of 50 MB", FACTS, &endless, 0, "engine: done");
    let fast = |event: &str| {
        format!("awk 'BEGIN {{ for (i = 0; i < 100000; i++) print \"{event}\" }}'\n{GOOD}")
    };
    let progress = r#"{\"event\": \"progress\", \"done\": 1, \"total\": 2, \"unit\": \"x\", \"message\": \"\"}"#;
    check("100,000 events", FACTS, &fast(progress), 0, "engine: done");
    let warning =
        r#"{\"event\": \"warning\", \"message\": \"a warning of some length, again and again\"}"#;
    check("100,000 warnings", FACTS, &fast(warning), 0, "engine: done");
}

#[test]
fn a_verdict_that_its_end_contradicts() {
    let done = "echo '{\"event\": \"done\", \"metrics\": {}}'";
    let said = "error: stage engine failed: the worker ended with exit status 1 without saying why";
    check("done, then exit 1", FACTS, &format!("{done}; exit 1"), 70, said);
    let twice = "echo '{\"event\": \"failed\", \"failure\": {\"blame\": \"user\", \"message\": \"no\", \"help\": null}}'; exit 0";
    check("failed, then exit 0", FACTS, twice, 1, "error: stage engine failed: no");
    let closed = format!("{GOOD}; exec 1>&- 2>&-; sleep 0.3");
    check("closes its pipes and goes on", FACTS, &closed, 0, "engine: done");
    let children = format!("setsid sleep 60 & sleep 60 & (sleep 60; echo late) & {GOOD}");
    check(
        "leaves children with its pipes",
        FACTS,
        &children,
        0,
        "processes running, which were ended",
    );
}

#[test]
fn facts_that_are_none() {
    let broken = "does not start: `facts` ended with exit status 0.";
    check("binary facts", "head -c 100000 /dev/urandom", GOOD, 3, broken);
    check("endless facts", "exec yes", GOOD, 3, "does not start: `facts` was killed by signal 13");
    check("no facts", "exit 9", GOOD, 3, "does not start: `facts` ended with exit status 9.");
}

#[test]
#[expect(clippy::zombie_processes, reason = "`end` waits for it, and learns of its memory")]
fn a_worker_that_ignores_the_question_is_killed() {
    let project = project(
        FACTS,
        "trap '' TERM INT HUP; touch \"${0%worker}begun\"; while true; do sleep 0.05; done",
    );
    let child = start(&project);
    wait_for("the worker", || project.path("begun").exists());
    signal(child.id(), libc::SIGTERM);
    signal(child.id(), libc::SIGTERM);
    let (status, _) = end(&child);
    assert_eq!(status.code(), Some(130), "{}", project.read("err"));
    assert!(strays(&project).is_empty());
}
