//! Thirty-two runs at once on one cache.

use std::collections::BTreeMap;

use crate::project::Project;

/// Half of the stages are the same in all pipelines, half are each one's own.
fn pipeline(own: usize) -> String {
    let shared = r#"
[stages.s]
kind = "command"
run = "echo s >> ran; sleep 0.02; echo s > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.m]
kind = "command"
matrix = { n = [1, 2, 3] }
run = "echo m$N >> ran; cat $QPIPE_IN_X > $QPIPE_OUT_X && echo $N >> $QPIPE_OUT_X"
env = { N = "${matrix.n}" }
inputs = { x = "s" }
outputs = { x = "x" }

[stages.own]
kind = "command"
run = "echo ownOWN >> ran; mkdir $QPIPE_OUT_F && cat $QPIPE_IN_A $QPIPE_IN_B $QPIPE_IN_C > $QPIPE_OUT_F/all"
inputs = { a = "m[1]", b = "m[2]", c = "m[3]" }
outputs = { f = "folder" }
"#;
    shared.replace("OWN", &own.to_string())
}

#[test]
fn each_stage_runs_once_and_all_succeed() {
    let project = Project::new(&pipeline(0));
    for own in 1..8 {
        project.write(&format!("q{own}.toml"), &pipeline(own));
    }
    let file = |run: usize| match run % 8 {
        0 => "p.toml".to_owned(),
        own => format!("q{own}.toml"),
    };
    let start = |run| project.command(&["run", &file(run), "-j4"]).spawn().unwrap();
    let runs: Vec<_> = (0..32).map(start).collect();
    for run in runs {
        let ended = run.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for stage in project.ran() {
        *counts.entry(stage).or_default() += 1;
    }
    assert_eq!(counts.len(), 4 + 8);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let journal = project.read("cache/journal");
    let records = journal.lines().filter(|line| line.starts_with("r\t")).count();
    assert_eq!(records, counts.len(), "a record for each");
    project.verify();
    for own in 0..8 {
        let name = if own == 0 { "p".to_owned() } else { format!("q{own}") };
        assert_eq!(
            project.read(&format!("cache/view/{name}/own/folder/all")),
            "s\n1\ns\n2\ns\n3\n"
        );
        assert!(project.path(&format!("{name}.lock")).exists());
    }
}
