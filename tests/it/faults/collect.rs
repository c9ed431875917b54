//! Collections beside runs.

use std::sync::atomic::{AtomicBool, Ordering};

use super::random::Random;
use crate::project::Project;

const PIPELINE: &str = r#"
[params]
word = "0"

[stages.a]
kind = "command"
run = "echo NAME $WORD > $QPIPE_OUT_X"
env = { WORD = "${params.word}" }
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "mkdir $QPIPE_OUT_F && cat $QPIPE_IN_X > $QPIPE_OUT_F/one && sleep 0.01 && echo b; echo equal > $QPIPE_OUT_F/two"
inputs = { x = "a" }
outputs = { f = "folder" }

[stages.c]
kind = "command"
run = "cat $QPIPE_IN_F/one $QPIPE_IN_F/two > $QPIPE_OUT_X"
inputs = { f = "b" }
outputs = { x = "x" }
"#;

#[test]
fn nothing_that_is_needed_is_removed() {
    let project = &Project::new(&PIPELINE.replace("NAME", "first"));
    project.run(&[]);
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let runs: Vec<_> = ["one", "two", "three"]
            .into_iter()
            .enumerate()
            .map(|(lane, name)| {
                scope.spawn(move || {
                    let mut random = Random::new(lane as u64);
                    let file = format!("{name}.toml");
                    project.write(&file, &PIPELINE.replace("NAME", name));
                    for _ in 0..25 {
                        // Few words: what a collection has left of earlier turns is used again.
                        let word = random.below(4);
                        let set = format!("params.word={word}");
                        let said = project.qpipe(&["run", &file, "-j2", "--set", &set]);
                        assert_eq!(said.code, Some(0), "{said:?}");
                        let artifact = project.read(&format!("cache/view/{name}/c/x"));
                        assert_eq!(artifact, format!("{name} {word}\nequal\n"), "{said:?}");
                        // Its lock file names it: no collection takes it.
                        let said = project.qpipe(&["run", &file, "--set", &set]);
                        assert_eq!(said.code, Some(0), "{said:?}");
                        assert!(!said.stderr.contains(": running ("), "{said:?}");
                    }
                })
            })
            .collect();
        let collections = scope.spawn(move || {
            let mut removed = 0;
            for turn in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let limit: &[&str] =
                    if turn % 2 == 0 { &["--keep-days", "0"] } else { &["--max-size", "1kB"] };
                let said = project.qpipe(&[&["cache", "gc"], limit].concat());
                assert_eq!(said.code, Some(0), "{said:?}");
                removed += usize::from(!said.stdout.starts_with("removed 0 results"));
            }
            removed
        });
        let ended: Vec<_> = runs.into_iter().map(|run| run.join()).collect();
        over.store(true, Ordering::Relaxed);
        for run in ended {
            run.unwrap();
        }
        let removed = collections.join().unwrap();
        assert!(removed > 3, "{removed} collections removed something");
    });
    project.verify();
}

#[test]
fn the_log_of_a_stage_that_runs_stays() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"echo first; touch begun; while ! test -e go; do sleep 0.01; done; echo second; exit 1\"\noutputs = { x = \"x\" }\n",
    );
    let runner = project.start(&[]);
    crate::project::wait_for("the stage", || project.path("begun").exists());
    let said = project.qpipe(&["cache", "gc", "--keep-days", "0"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    project.write("go", "");
    let ended = runner.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    let log = stderr.split("log:  ").nth(1).expect(&stderr).trim();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "first\nsecond\n");
}
