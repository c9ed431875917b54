//! Sweeps: `--set` options with several values.

use std::collections::BTreeMap;

use qpipe::config::{Origin, Overrides, Pipeline};
use serde_json::{Value, json};

use crate::project::Project;

/// `base` depends on nothing, `fit` on both parameters, `size` on one, `eval` on `fit`.
const STUDY: &str = r#"
[params]
lr = 0.1
epochs = 1
[data.train]
format = "image-folder"
path = "images"
[stages.base]
kind = "command"
run = "echo base >> ran; echo base > $QPIPE_OUT_X"
outputs = { x = "x" }
[stages.fit]
kind = "command"
run = 'echo fit $LR >> ran; echo "{\"loss\": $LR, \"steps\": $EPOCHS}" > $QPIPE_OUT_M; echo $LR$EPOCHS > $QPIPE_OUT_X'
inputs = { b = "base" }
env = { LR = "${params.lr}", EPOCHS = "${params.epochs}" }
outputs = { m = { file = "m.json", type = "metrics" }, x = "x" }
[stages.eval]
kind = "command"
matrix = { v = ["a", "b"] }
run = 'echo eval ${matrix.v} >> ran; echo "{\"${matrix.v}\": {\"top1\": $(cat $QPIPE_IN_X)}}" > $QPIPE_OUT_M'
inputs = { x = "fit.x" }
outputs = { m = { file = "m.json", type = "metrics" } }
[stages.report]
kind = "report"
from = ["fit.m"]
"#;

fn study() -> Project {
    let project = Project::new(STUDY);
    project.write("images/a/x.txt", "");
    project
}

fn load(project: &Project, set: &[&str]) -> Pipeline {
    let set = set.iter().map(|&text| text.to_owned()).collect();
    let overrides = Overrides { set, env: BTreeMap::new(), ..Overrides::default() };
    qpipe::config::load(&project.path("p.toml"), &overrides)
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn ids(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.stages.iter().map(|cell| cell.id.as_str()).collect()
}

fn producers<'p>(pipeline: &'p Pipeline, id: &str) -> Vec<&'p str> {
    let cell = pipeline.stages.iter().find(|cell| cell.id == id).unwrap();
    let producer = |origin: &'p Origin| match origin {
        Origin::Stage { id, .. } | Origin::Data(id) => Some(id.as_str()),
        Origin::Path(_) => None,
    };
    cell.inputs.iter().filter_map(|input| producer(&input.origin)).collect()
}

#[test]
fn what_is_the_same_in_all_points_is_there_once() {
    let project = study();
    let pipeline = load(&project, &["params.lr=0.1,0.2"]);
    let expected = [
        "base",
        "fit@lr=0.1",
        "eval[a]@lr=0.1",
        "eval[b]@lr=0.1",
        "report@lr=0.1",
        "fit@lr=0.2",
        "eval[a]@lr=0.2",
        "eval[b]@lr=0.2",
        "report@lr=0.2",
    ];
    assert_eq!(ids(&pipeline), expected);
    assert_eq!(producers(&pipeline, "fit@lr=0.2"), ["base"]);
    assert_eq!(producers(&pipeline, "eval[b]@lr=0.2"), ["fit@lr=0.2"]);
    assert_eq!(producers(&pipeline, "report@lr=0.2"), ["fit@lr=0.2"]);
    let sweep = pipeline.sweep.as_ref().unwrap();
    assert_eq!(
        (sweep.variables[0].name.as_str(), sweep.variables[0].key.as_str()),
        ("lr", "params.lr")
    );
    let point = pipeline.stages[8].point.as_ref().unwrap();
    assert_eq!(point.values, [("lr".to_owned(), json!(0.2))]);
    assert_eq!(pipeline.stages[7].base_id(), "eval[b]");
    assert!(pipeline.stages[0].point.is_none());
    assert!(load(&project, &["params.lr=0.2"]).sweep.is_none());
}

#[test]
fn several_options_make_the_product_and_the_last_changes_fastest() {
    let project = study();
    let pipeline = load(
        &project,
        &["params.lr=0.1,0.2", "params.epochs=3", "stages.eval.matrix.v=[\"a\"],[\"c\", \"d\"]"],
    );
    let points = pipeline.sweep.as_ref().unwrap().points.iter();
    let labels: Vec<&str> = points.map(|point| point.label.as_str()).collect();
    let expected = [
        "lr=0.1,v=[\"a\"]",
        "lr=0.1,v=[\"c\",\"d\"]",
        "lr=0.2,v=[\"a\"]",
        "lr=0.2,v=[\"c\",\"d\"]",
    ];
    assert_eq!(labels, expected);
    // The matrix itself differs: 1 or 2 cells, `fit` and `report` in each point, `base` once.
    assert_eq!(pipeline.stages.len(), 1 + 4 * 2 + 2 * (1 + 2));
}

#[test]
fn quoted_commas_and_arrays_are_one_value() {
    let project = study();
    let set = ["stages.fit.env.LR=\"1,2\"", "params.epochs=[1, 2]"];
    project.write("p.toml", &STUDY.replace("EPOCHS = \"${params.epochs}\"", "EPOCHS = \"1\""));
    let pipeline = load(&project, &set);
    assert!(pipeline.sweep.is_none());
    assert_eq!(pipeline.stages[1].stage.config()["env"]["LR"], "1,2");
    let pipeline = load(&project, &["stages.fit.env.LR=\"1,2\",'3,4'"]);
    assert_eq!(ids(&pipeline)[1], "fit@LR=1,2");
    assert_eq!(pipeline.stages[1].stage.config()["env"]["LR"], "1,2");
}

#[test]
fn seeds_and_data_differ_from_point_to_point() {
    let project = study();
    let pipeline = load(&project, &["pipeline.seed=5,6"]);
    assert_eq!(pipeline.stages.len(), 10, "the seed belongs to all");
    assert_eq!((pipeline.stages[0].seed, pipeline.stages[5].seed), (5, 6));
    let train = "\n[stages.q]\nkind = \"train\"\nmodel = { arch = \"resnet18\", classes = 2, image_size = 32 }\ntrain = \"data.train\"\nvalid = \"data.train\"\nepochs = 1\noptimizer = { kind = \"sgd\", lr = 0.1 }\n";
    project.write("p.toml", &(STUDY.to_owned() + train));
    let pipeline = load(&project, &["data.train.limit=10,20"]);
    assert_eq!(ids(&pipeline)[5..], ["q@limit=10", "q@limit=20"]);
    assert_eq!(producers(&pipeline, "q@limit=20"), ["train@limit=20", "train@limit=20"]);
    assert_eq!(pipeline.data["train@limit=20"].spec.limit, Some(20));
    assert!(!pipeline.data.contains_key("train"));
}

#[test]
fn names_are_longer_where_they_are_ambiguous() {
    let project = study();
    let set = ["stages.fit.env.LR='1','2'", "stages.fit.run=x 1,x 2", "stages.base.run=a,b"];
    let pipeline = load(&project, &set);
    assert_eq!(pipeline.stages[0].id, "base@LR=1,fit.run=x 1,base.run=a");
}

#[test]
fn a_target_may_have_spaces() {
    let project = study();
    let set = "stages.base.run=echo a > $QPIPE_OUT_X,echo b > $QPIPE_OUT_X";
    project.run(&["base@run=echo b > $QPIPE_OUT_X", "--set", set]);
    assert_eq!(project.artifact("base@run=echo b > $QPIPE_OUT_X/x"), "b\n");
    assert_eq!(project.artifact("base@run=echo a > $QPIPE_OUT_X/x"), "");
}

#[test]
fn a_sweep_runs_each_point_and_prints_one_table() {
    let project = study();
    let said = project.run(&["--set", "params.lr=0.3,0.2", "--set", "params.epochs=1,2"]);
    let ran = project.ran();
    assert_eq!(ran.iter().filter(|line| *line == "base").count(), 1);
    assert_eq!(ran.len(), 1 + 4 * 3);
    let table = "
lr   epochs  loss   steps   a.top1   b.top1
───────────────────────────────────────────
0.3  1        0.3       1     0.31     0.31
0.3  2        0.3       2     0.32*    0.32*
0.2  1        0.2*      1     0.21     0.21
0.2  2        0.2*      2     0.22     0.22

artifacts in ";
    assert!(said.stdout.contains(table), "{}", said.stdout);
    assert!(said.stdout.contains("p, lr=0.2,epochs=2\n"), "the report's point: {}", said.stdout);
    // Nothing of it is a state of the pipeline that could be committed.
    assert!(!project.path("p.lock").exists());
    let markdown = project.artifact("sweep.md");
    assert!(markdown.contains("| 0.2 | 2 | **0.2** | 2 | 0.22 | 0.22 |\n"), "{markdown}");
    let json: Value = serde_json::from_str(&project.artifact("sweep.json")).unwrap();
    assert_eq!(json["points"][1]["best"], json!([false, false, true, true]));
}

#[test]
fn points_share_the_cache_with_plain_runs_and_are_targets() {
    let project = study();
    project.run(&["--set", "params.lr=0.2", "eval"]);
    project.ran();
    let said = project.run(&["eval[a]@lr=0.2", "--set", "params.lr=0.1,0.2"]);
    assert!(project.ran().is_empty(), "{said:?}");
    assert_eq!(said.stderr, "base: cached\nfit@lr=0.2: cached\neval[a]@lr=0.2: cached\n");
    project.run(&["eval[a]", "--set", "params.lr=0.1,0.2"]);
    assert_eq!(project.ran(), ["fit 0.1", "eval a"]);
    project.run(&["@lr=0.1", "--set", "params.lr=0.1,0.2"]);
    assert_eq!(project.ran(), ["eval b"]);
}

#[test]
fn the_best_of_an_unknown_figure_can_be_asked_for() {
    let project = study();
    let best = |more: &[&str]| {
        let sweep = ["--set", "params.epochs=1,2", "fit"];
        let said = project.run(&[&sweep, more].concat());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows = said.stdout.lines().map(words).filter(|row| row.len() == 3 && row[1] == "0.1");
        rows.map(|row| row[2].clone()).collect::<Vec<_>>()
    };
    assert_eq!(best(&[]), ["1", "2"]);
    assert_eq!(best(&["--best", "steps"]), ["1", "2*"]);
    assert_eq!(best(&["--best", "steps:min"]), ["1*", "2"]);
    assert_eq!(project.qpipe(&["run", "p.toml", "--best", "steps:least"]).code, Some(2));
}

#[test]
fn a_sweep_says_what_it_is_and_is_not_locked() {
    let project = study();
    let said = project.qpipe(&["check", "p.toml", "--set", "params.lr=0.1,0.2"]);
    let expected = "p.toml: ok, a sweep of 2 points: 1 stage the same in all, 8 of their own\n";
    assert_eq!(said.stdout, expected);
    let said = project.qpipe(&["run", "p.toml", "--locked", "--set", "params.lr=0.1,0.2"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.starts_with("error: --locked is for a pipeline"), "{}", said.stderr);
}

#[test]
fn what_some_points_share_is_run_once_too() {
    let project = Project::new(
        r#"
[params]
lr = 0.1
epochs = 1
[stages.half]
kind = "command"
run = "echo half >> ran; echo $LR > $QPIPE_OUT_X"
env = { LR = "${params.lr}" }
outputs = { x = "x" }
[stages.whole]
kind = "command"
run = "echo whole >> ran; cat $QPIPE_IN_X > $QPIPE_OUT_X"
inputs = { x = "half" }
env = { EPOCHS = "${params.epochs}" }
outputs = { x = "x" }
"#,
    );
    let said = project.run(&["--set", "params.lr=0.1,0.2", "--set", "params.epochs=1,2,3"]);
    let ran = project.ran();
    let count = |stage: &str| ran.iter().filter(|line| *line == stage).count();
    // Equal keys are one action, however many stages have them.
    assert_eq!((count("half"), count("whole")), (2, 6), "{said:?}");
}

#[test]
fn why_of_a_new_point_names_the_nearest_that_ran() {
    let project = study();
    project.run(&["--set", "params.lr=0.1,0.2", "--set", "params.epochs=1,2"]);
    let why = |lr: &str, stage: &str| {
        let (lr, epochs) = (format!("params.lr={lr}"), "params.epochs=1,2");
        let said = project.qpipe(&["why", "p.toml", "--set", &lr, "--set", epochs, stage]);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.stdout
    };
    assert_eq!(
        why("0.1,0.2,0.3", "fit@lr=0.3,epochs=2"),
        "fit@lr=0.3,epochs=2: runs: new point of a sweep: nothing with these parameters ran before; \
         nearest is fit@lr=0.1,epochs=2 (env.LR: 0.1 → 0.3)\n"
    );
    assert_eq!(
        why("0.3,0.4", "fit@lr=0.3,epochs=2"),
        "fit@lr=0.3,epochs=2: runs: never ran\n",
        "no point of this sweep ran"
    );
}
