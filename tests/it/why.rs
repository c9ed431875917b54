//! `qpipe why`: old and new values of all that changed.

use serde_json::Value;

use crate::project::Project;

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

/// The last success without its time and place.
fn without_success(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let line = line.split(": 20").next().unwrap_or(line);
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

#[test]
fn what_changed_is_shown_with_old_and_new_values() {
    let project = Project::new(PIPELINE);
    project.write("src.txt", "abc");
    let why = |stages: &[&str]| {
        let said = project.qpipe(&[&["why", "p.toml"], stages].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        without_success(&said.stdout)
    };
    assert_eq!(why(&["a", "b"]), "a: runs: never ran\nb: may run: depends on a\n");
    assert!(!project.path("cache").exists(), "it writes nothing");
    project.run(&[]);
    assert_eq!(why(&["b"]), "b: up to date\n  last success\n");
    let word = ["b", "--set", "params.word=two"];
    assert_eq!(
        why(&word),
        "b: runs, since its last success\n  env.WORD: one → two\n  last success\n"
    );
    let seed = ["a", "--set", "pipeline.seed=7"];
    assert_eq!(why(&seed), "a: runs, since its last success\n  seed: 0 → 7\n  last success\n");
    project.write("src.txt", "abcd");
    // The first 12 digits of SHA-256 of `abc` and `abcd`.
    assert_eq!(
        why(&["a", "b"]),
        "a: runs, since its last success\n  file src.txt changed: ba7816bf8f01 → 88d4266fd4e6\n  last success\n\
         b: may run: depends on a\n  last success\n"
    );
    let said = project.qpipe(&["why", "p.toml", "a", "--json"]);
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    let stage = &json["stages"][0];
    assert_eq!(stage["action"], "run");
    assert_eq!(stage["changes"][0]["new"], "88d4266fd4e6");
    assert!(stage["last"]["started"].as_str().unwrap().starts_with("20"));
}

#[test]
fn a_stage_that_is_not_there_is_refused() {
    let project = Project::new(PIPELINE);
    project.write("src.txt", "abc");
    let said = project.qpipe(&["why", "p.toml", "c"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("no stage is named `c`"), "{said:?}");
}
