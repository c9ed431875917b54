//! `qpipe ci`: guards against the accepted lock file; `--summary`; `--locked` on another machine.

use std::process::Command;

use serde_json::Value;

use crate::project::{Project, Said};

/// A stage whose figures stand in a file.
const PIPELINE: &str = r#"
[stages.measured]
kind = "command"
run = "cp $QPIPE_IN_SRC $QPIPE_OUT_M"
files = { src = "figures.json" }
outputs = { m = { file = "m.json", type = "metrics" } }

[stages.other]
kind = "command"
run = "touch $QPIPE_OUT_X"
outputs = { x = "x" }

[guards.accuracy]
metric = "measured.top1"
max_drop = 0.01

[guards.latency]
metric = "measured.ms.p99"
max_growth_percent = 10
max = 20
"#;

fn figures(project: &Project, top1: f64, p99: f64) {
    project.write("figures.json", &format!("{{\"top1\": {top1}, \"ms\": {{\"p99\": {p99}}}}}"));
}

fn ci(project: &Project, more: &[&str]) -> Said {
    let mut command = project.command(&[&["ci", "p.toml", "-j1"], more].concat());
    for name in ["GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"] {
        command.env_remove(name);
    }
    // Whatever repository the temporary folder may lie in is not the project's.
    project.said(command.env("GIT_CEILING_DIRECTORIES", project.path("").parent().unwrap()))
}

fn git(project: &Project, arguments: &[&str]) {
    let identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"];
    let output =
        Command::new("git").arg("-C").arg(project.path("")).args(identity).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// It dropped all guards, said that there are none, and succeeded.
#[test]
fn a_sweep_is_not_held_to_guards() {
    let project = Project::new(PIPELINE);
    figures(&project, 0.9, 30.0);
    let sweep = ["--set", "stages.other.run='true','false'"];
    let said = ci(&project, &sweep);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("makes a sweep of 2"), "{said:?}");
    // Nothing is held where none is asked for.
    let said = project.qpipe(&[&["run", "p.toml", "--keep-going"], &sweep[..]].concat());
    assert!(!said.stderr.contains("guard"), "{said:?}");
}

#[test]
fn a_broken_guard_leaves_the_lock_file_as_it_is() {
    let project = Project::new(PIPELINE);
    figures(&project, 0.9, 10.0);
    let said = ci(&project, &[]);
    let table = "\
\nguards, against p.lock before

guard     figure           before  now  change  bound                          verdict
accuracy  measured.top1    -       0.9  -       max_drop 0.01                  new
latency   measured.ms.p99  -       10   -       max_growth_percent 10, max 20  new

accuracy: no figure was accepted yet to compare with
latency: no figure was accepted yet to compare with
artifacts in [DIR]/cache/view/p
wrote [DIR]/p.lock
2 ran, 0 cached in N s
";
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), table), "{said:?}");
    let lock = project.read("p.lock");
    figures(&project, 0.89, 11.5);
    for _ in 0..2 {
        // Held to the last digit; the other grew by 15 %. Again, with all in the cache.
        let said = ci(&project, &[]);
        assert_eq!(said.code, Some(5), "{said:?}");
        assert!(said.stdout.contains("0.9     0.89  -0.01 (-1.1 %)  max_drop"), "{said:?}");
        assert!(said.stdout.contains("+1.5 (+15.0 %)  max_growth_percent 10, max 20  BROKEN\n"));
        assert!(said.stdout.contains("\n1 guard broken (latency)\n  help: --accept"), "{said:?}");
        assert!(said.stdout.ends_with(", 1 guard broken in N s\n"), "{said:?}");
        assert_eq!(project.read("p.lock"), lock);
    }
    let quiet = ci(&project, &["--quiet"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(5), ""));
    assert!(quiet.stderr.contains("1 guard broken (latency)"), "{quiet:?}");
    let said = ci(&project, &["--accept"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("1 guard broken (latency), accepted all the same"), "{said:?}");
    assert_ne!(project.read("p.lock"), lock);
    assert_eq!(ci(&project, &[]).code, Some(0), "accepted from then on");
    let both = ci(&project, &["--accept", "--locked"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn a_figure_that_is_gone_and_a_stage_that_is_not_selected() {
    let project = Project::new(PIPELINE);
    project.write("figures.json", r#"{"top1": "high", "top5": 1, "ms": {"p99": 5}}"#);
    let said = ci(&project, &[]);
    assert_eq!(said.code, Some(5), "{said:?}");
    let note =
        "accuracy: stage measured has no figure top1 that is a number; it has ms.p99, top5\n";
    assert!(said.stdout.contains(note), "{said:?}");
    assert!(!project.path("p.lock").exists());
    let said = ci(&project, &["other"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("accuracy: stage measured was not run to its end\n"), "{said:?}");
}

#[test]
fn a_baseline_is_a_figure_of_the_same_run() {
    let project = Project::new(
        r#"
[stages.measured]
kind = "command"
matrix = { variant = ["fp32", "int8"] }
run = "cp $QPIPE_IN_SRC $QPIPE_OUT_M"
files = { src = "${matrix.variant}.json" }
outputs = { m = { file = "m.json", type = "metrics" } }

[guards.loss]
metric = "measured[int8].top1"
baseline = "measured[fp32].top1"
max_drop = 0.01
"#,
    );
    let write = |variant: &str, text: &str| project.write(&format!("{variant}.json"), text);
    write("fp32", "{\"top1\": 0.9}");
    write("int8", "{\"top1\": 0.85}");
    // The first run has something to compare with, too.
    let said = ci(&project, &[]);
    assert_eq!(said.code, Some(5), "{said:?}");
    let row = "loss   measured[int8].top1 against measured[fp32].top1  0.9     0.85  -0.05 (-5.6 %)  max_drop 0.01  BROKEN";
    assert!(said.stdout.contains(row), "{said:?}");
    // Both fell together: an accepted figure would break it.
    write("fp32", "{\"top1\": 0.7}");
    write("int8", "{\"top1\": 0.69}");
    let said = ci(&project, &["--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.stdout.contains("\"baseline\":\"measured[fp32].top1\",\"before\":0.7,"),
        "{said:?}"
    );
    let said = ci(&project, &["measured[int8]"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("loss: stage measured[fp32] was not run to its end"), "{said:?}");
    write("fp32", "{\"top5\": 0.7}");
    let said = ci(&project, &[]);
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(said.stdout.contains("stage measured[fp32] has no figure top1"), "{said:?}");
}

#[test]
fn what_counts_is_the_commit() {
    let project = Project::new(PIPELINE);
    figures(&project, 0.9, 10.0);
    git(&project, &["init", "-q", "-b", "main"]);
    // Nothing is accepted before the first commit.
    assert_eq!(ci(&project, &[]).code, Some(0));
    git(&project, &["add", "p.toml", "p.lock"]);
    git(&project, &["commit", "-qm", "one"]);
    git(&project, &["tag", "first"]);
    figures(&project, 0.5, 10.0);
    project.run(&[]);
    let said = ci(&project, &[]);
    assert_eq!(said.code, Some(5), "not the file that a run wrote meanwhile: {said:?}");
    assert!(said.stdout.contains("guards, against p.lock of HEAD\n"), "{said:?}");
    git(&project, &["commit", "-qam", "two"]);
    assert_eq!(ci(&project, &[]).code, Some(0));
    assert_eq!(ci(&project, &["--against", "first"]).code, Some(5));
    project.write("saved.lock", &project.read("p.lock"));
    figures(&project, 0.4, 10.0);
    let said = ci(&project, &["--against", "saved.lock"]);
    assert!(said.code == Some(5) && said.stdout.contains("against saved.lock\n"), "{said:?}");
}

#[test]
fn what_cannot_be_compared_with_is_an_error() {
    let project = Project::new(PIPELINE);
    figures(&project, 0.9, 10.0);
    for there in [false, true] {
        if there {
            git(&project, &["init", "-q"]);
        }
        let said = ci(&project, &["--against", "--output=x"]);
        assert_eq!(said.code, Some(2), "{said:?}");
        let said = ci(&project, &["--against=--output=x"]);
        assert_eq!(said.code, Some(2), "{said:?}");
        let expected = "error: --against --output=x: there is no such file, and git knows no such";
        assert!(said.stderr.starts_with(expected), "{said:?}");
    }
    project.write("broken.lock", "format = 1\n");
    let said = ci(&project, &["--against", "broken.lock"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(project.ran().is_empty() && !project.path("p.lock").exists());
}

#[test]
fn events_of_guards() {
    let project = Project::new(PIPELINE);
    figures(&project, 0.9, 10.0);
    ci(&project, &[]);
    figures(&project, 0.8, 10.0);
    let said = ci(&project, &["--json"]);
    let events: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| {
        let found = events.iter().filter(|event| event["event"] == name);
        found.cloned().collect::<Vec<_>>()
    };
    let guards = of("guard");
    assert_eq!(guards.len(), 2, "{said:?}");
    assert_eq!(
        (&guards[0]["guard"], &guards[0]["verdict"]),
        (&"accuracy".into(), &"broken".into())
    );
    assert_eq!((&guards[0]["before"], &guards[0]["now"]), (&0.9.into(), &0.8.into()));
    assert_eq!(guards[0]["bounds"][0], "max_drop 0.01");
    assert_eq!(guards[1]["verdict"], "held");
    let all = &of("guards")[0];
    assert_eq!((&all["held"], &all["broken"], &all["skipped"]), (&1.into(), &1.into(), &0.into()));
    let changes = &of("figures")[0]["changes"];
    assert_eq!((changes.as_array().unwrap().len(), &changes[0]["metric"]), (1, &"top1".into()));
    assert_eq!(of("summary")[0]["broken_guards"], 1);
}

#[test]
fn a_summary_is_appended_and_errors_are_annotated() {
    let project = Project::new(&PIPELINE.replace("touch $QPIPE_OUT_X", "echo '```'; false"));
    figures(&project, 0.9, 10.0);
    project.write("out.md", "before\n");
    let mut command =
        project.command(&["run", "p.toml", "--summary", "out.md", "-j1", "--keep-going"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", project.path(""));
    let said = project.said(&mut command);
    assert_eq!(said.code, Some(1), "{said:?}");
    let line = "::error file=p.toml,line=8::stage other failed: `echo '```'; false` ended with exit status 1\n";
    assert!(said.stderr.contains(line), "{said:?}");
    let text = project.read("out.md");
    let start = "before\n\n## p: failed\n\n1 ran, 0 cached, 1 failed in ";
    assert!(text.starts_with(start), "{text}");
    assert!(
        text.contains(
            "### other failed\n\n\\`echo '\\`\\`\\`'; false\\` ended with exit status 1\n"
        ),
        "{text}"
    );
    assert!(text.contains("\n````text\n```\n````\n"), "{text}");
    assert!(text.contains("| measured | never ran | "), "{text}");
    // A stage of a file that is extended: its own file and line.
    project.write("base.toml", &project.read("p.toml"));
    project.write("over.toml", "extends = \"base.toml\"\n");
    let mut command = project.command(&["run", "over.toml", "-j1", "--keep-going"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", project.path(""));
    let said = project.said(&mut command);
    assert!(said.stderr.contains(&line.replace("p.toml", "base.toml")), "{said:?}");
    project.write("p.toml", "[stages.a]\nkind = \"comand\"\n");
    let mut command = project.command(&["ci", "p.toml"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", project.path(""));
    let said = project.said(&mut command);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("::error file=p.toml,line=2::"), "{said:?}");
}

/// Timings as `benchmark` writes them, of a float engine and of one that quantization made slower.
const SLOWER: &str = r#"
[stages.timed]
kind = "command"
matrix = { variant = ["fp32", "int8"] }
run = "cp ${matrix.variant}.json $QPIPE_OUT_M"
files = { src = "${matrix.variant}.json" }
outputs = { m = { file = "m.json", type = "metrics" } }

[stages.report]
kind = "report"
from = ["timed"]
"#;

#[test]
fn int8_that_is_slower_than_float_is_told_as_a_failure() {
    let project = Project::new(SLOWER);
    for (variant, quantized, median) in [("fp32", false, 1.0), ("int8", true, 1.25)] {
        let latency = serde_json::json!({"min": median, "mean": median, "median": median, "p90": median, "p95": median, "p99": median});
        let figures = serde_json::json!({"backend": "onnxruntime", "threads": 1, "quantized": quantized, "batches": [
            {"batch": 1, "iterations": 9, "latency_ms": latency, "throughput": 1000.0 / median}]});
        project.write(&format!("{variant}.json"), &figures.to_string());
    }
    let mut command = project.command(&["run", "p.toml", "--summary", "out.md", "-j1"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", project.path(""));
    let said = project.said(&mut command);
    let failure = "int8 is slower than fp32 at batch 1: 0.80×. Quantization does not pay there.";
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains(&format!("\nFAILED: {failure}\n")), "{said:?}");
    let warning = format!("::warning file=p.toml,line=9::report: {failure}\n");
    assert!(said.stderr.contains(&warning), "{said:?}");
    assert!(project.read("out.md").contains(&format!("\n**Failed:** {failure}\n")));
    let report: Value = serde_json::from_str(&project.artifact("report/report.json")).unwrap();
    assert_eq!(report["failures"], serde_json::json!([failure]));
}

/// An engine made by a worker that is a script, and what a command makes of it.
fn machine() -> Project {
    let project = Project::new(
        r#"
[params]
word = "one"

[stages.model]
kind = "command"
run = "echo model > $QPIPE_OUT_M"
outputs = { m = { file = "model.onnx", type = "model" } }

[stages.engine]
kind = "build-engine"
model = "model.m"
backend = "onnxruntime"

[stages.size]
kind = "command"
run = "cat $QPIPE_IN_E/word > $QPIPE_OUT_X; echo $WORD >> $QPIPE_OUT_X"
inputs = { e = "engine.engine" }
env = { WORD = "${params.word}" }
outputs = { x = "x" }
"#,
    );
    let script = format!(
        r#"#!/bin/sh
case "$1" in
facts) cat {folder}/facts ;;
run)
    out=$(sed -n 's/.*"engine": "\(.*\/out\/.*\)".*/\1/p' "$2")
    mkdir "$out"; cat {folder}/facts > "$out/word"; echo {{}} > "$out/../layers.json"
    echo '{{"event": "done", "metrics": {{"nodes": 3}}}}' ;;
esac
"#,
        folder = project.path("").display()
    );
    project.program("worker", &script);
    project
}

#[test]
fn locked_allows_for_another_machine_and_for_nothing_else() {
    let project = machine();
    // A machine is a version of the library and a cache.
    let on = |name: &str, more: &[&str]| {
        let facts = serde_json::json!({"facts": {"onnx-runtime": name}, "files": []});
        project.write("facts", &facts.to_string());
        let mut command = project.command(&[&["run", "p.toml", "-j1"], more].concat());
        let cache = project.path(&format!("cache-{name}"));
        project.said(command.env("QPIPE_WORKER", project.path("worker")).env("QPIPE_CACHE", cache))
    };
    let missing = on("one", &["--locked"]);
    assert_eq!(missing.code, Some(4), "{missing:?}");
    assert!(missing.stderr.contains("--locked forbids it: there is no such file"), "{missing:?}");
    assert_eq!(on("one", &[]).code, Some(0));
    let lock = project.read("p.lock");
    assert_eq!(on("one", &["--locked=strict"]).code, Some(0));
    for again in [false, true] {
        let said = on("two", &["--locked"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let note = "engine: warning: not the key of p.lock, by the machine alone (onnx-runtime: one → two)\n";
        assert!(said.stderr.contains(note), "{said:?}");
        assert!(said.stderr.contains("size: warning: not the key of p.lock"), "{said:?}");
        assert_eq!(said.stderr.contains("size: cached"), again, "{said:?}");
        assert_eq!(project.read("p.lock"), lock, "it stays as it is");
    }
    let strict = on("two", &["--locked=strict"]);
    assert_eq!(strict.code, Some(4), "{strict:?}");
    assert!(strict.stderr.contains("stage engine has another key (onnx-runtime: one → two)"));
    // What the file says is another thing, and is found before anything runs.
    let said = on("three", &["--locked", "--set", "params.word=two"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    let words: Vec<&str> = said.stderr.lines().collect();
    assert_eq!(
        words[0],
        "error: [DIR]/p.lock would change, and --locked forbids it: stage size has another key (env.WORD: one → two)"
    );
    let text = lock.replace("version = 1", "version = 2");
    project.write("p.lock", &text);
    let said = on("one", &["--locked"]);
    assert!(said.stderr.contains("does not have the key that it names"), "{said:?}");
}

#[test]
fn locked_refuses_a_result_that_came_out_otherwise() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"date +%N > $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    project.run(&[]);
    let lock = project.read("p.lock");
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    let said = project.qpipe(&["run", "p.toml", "--locked"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.stderr.contains("stage a came out otherwise than before (x: "), "{said:?}");
    assert_eq!(project.read("p.lock"), lock);
}
