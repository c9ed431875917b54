//! `extends` and `[profiles.NAME]`: what a file is put together from.

use std::collections::BTreeMap;

use qpipe::config::{Origin, Overrides, Pipeline};

use crate::project::Project;

const BASE: &str = r#"
extends = "../root.toml"
[pipeline]
name = "base"
seed = 3
[params]
word = "base"
file = "near.txt"
[stages.a]
kind    = "command"
run     = "echo ${params.word} > $QPIPE_OUT_X; pwd > $QPIPE_OUT/pwd"
files   = { own = "near.txt", given = "${params.file}", inside = "${params.folder}/far.txt" }
env     = { ONE = "1", TWO = "2" }
outputs = { x = "x", pwd = "pwd" }
"#;

const MAIN: &str = r#"
extends = ["lib/base.toml"]
[pipeline]
name = "p"
[params]
file = "beside.txt"
[stages.a]
env.TWO = "two"
[stages.b]
kind    = "command"
run     = "cat $QPIPE_IN_X > $QPIPE_OUT_X"
inputs  = { x = "a.x" }
files   = { far = "${params.folder}/far.txt", text = "./${params.file}" }
outputs = { x = "x" }
[profiles.ci.params]
word = "ci"
[profiles.ci.stages.b.env]
MODE = "fast"
[profiles.loud.params]
word = "LOUD"
[profiles.broken.stages.nothing]
kind = "of no kind"
"#;

fn project() -> Project {
    let project = Project::new(MAIN);
    project.write("lib/base.toml", BASE);
    project.write("root.toml", "[params]\nfolder = \"files\"\nword = \"root\"\n");
    for file in ["lib/near.txt", "beside.txt", "files/far.txt"] {
        project.write(file, file);
    }
    project
}

fn load(project: &Project, profiles: &[&str], set: &[&str]) -> Pipeline {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let overrides = Overrides { set: owned(set), profiles: owned(profiles), env: BTreeMap::new() };
    qpipe::config::load(&project.path("p.toml"), &overrides)
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// What the file behind a port of a stage holds: its own path from the project's folder.
fn held(pipeline: &Pipeline, stage: usize, port: &str) -> String {
    let inputs = &pipeline.stages[stage].inputs;
    match &inputs.iter().find(|input| input.port == port).unwrap().origin {
        Origin::Path(path) => std::fs::read_to_string(path).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_put_over_those_that_it_extends() {
    let project = project();
    let pipeline = load(&project, &[], &[]);
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("p", 3));
    let ids: Vec<&str> = pipeline.stages.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"], "the base's stages come first");
    assert!(pipeline.stages[0].file.ends_with("p.toml"), "the last table of that name");
    assert_eq!(pipeline.stages[0].line, 7);
    let config = pipeline.stages[0].stage.config();
    assert_eq!(config["env"], serde_json::json!({ "ONE": "1", "TWO": "two" }));
    assert!(config["run"].as_str().unwrap().starts_with("echo base "), "{config}");
}

#[test]
fn a_path_is_relative_to_the_file_that_it_comes_from() {
    let project = project();
    let pipeline = load(&project, &[], &[]);
    assert_eq!(held(&pipeline, 0, "own"), "lib/near.txt");
    // The parameter is the main file's, the stage is the base's.
    assert_eq!(held(&pipeline, 0, "given"), "beside.txt");
    // It begins with a parameter of a third file.
    assert_eq!(held(&pipeline, 0, "inside"), "files/far.txt");
    assert_eq!(held(&pipeline, 1, "far"), "files/far.txt");
    assert_eq!(held(&pipeline, 1, "text"), "beside.txt");
    let overridden = load(&project, &[], &["params.file=files/far.txt"]);
    assert_eq!(held(&overridden, 0, "given"), "files/far.txt", "relative to the main file");
}

#[test]
fn commands_of_a_base_run_in_the_main_files_folder() {
    let project = project();
    project.run(&[]);
    let folder = project.path("p.toml").canonicalize().unwrap();
    let folder = folder.parent().unwrap().display().to_string();
    assert_eq!(project.artifact("a/pwd").trim_end(), folder);
}

#[test]
fn profiles_are_put_over_the_file_in_order() {
    let project = project();
    let run = |profiles: &[&str], set: &[&str]| {
        let pipeline = load(&project, profiles, set);
        let config = pipeline.stages[0].stage.config();
        config["run"].as_str().unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(run(&[], &[]), "base");
    assert_eq!(run(&["ci"], &[]), "ci");
    assert_eq!(run(&["ci", "loud"], &[]), "LOUD");
    assert_eq!(run(&["loud", "ci"], &[]), "ci");
    assert_eq!(run(&["loud", "ci"], &["params.word=set"]), "set");
    let config = load(&project, &["ci"], &[]).stages[1].stage.config();
    assert_eq!(config["env"], serde_json::json!({ "MODE": "fast" }));
}

#[test]
fn the_variable_chooses_profiles_unless_the_command_line_does() {
    let project = project();
    let word = |variable: &str, more: &[&str]| {
        let mut command = project.command(&[&["run", "p.toml"], more].concat());
        let said = project.said(command.env("QPIPE_PROFILE", variable));
        assert_eq!(said.code, Some(0), "{said:?}");
        project.artifact("a/x").trim_end().to_owned()
    };
    assert_eq!(word("ci, loud", &[]), "LOUD");
    assert_eq!(word("loud", &["--profile", "ci"]), "ci");
    assert_eq!(word("", &[]), "base");
}

#[test]
fn each_profile_has_a_lock_file_of_its_own() {
    let project = Project::new(
        r#"
[params]
word = "base"
[stages.a]
kind = "command"
run = "echo ${params.word} > $QPIPE_OUT_X"
outputs = { x = "x" }
[profiles.ci.params]
word = "ci"
[profiles.loud.params]
word = "LOUD"
"#,
    );
    let run = |arguments: &[&str]| {
        let said = project.said(&mut project.command(&[&["run", "p.toml"], arguments].concat()));
        assert_eq!(said.code, Some(0), "{said:?}");
        said.stdout
    };
    assert!(run(&[]).contains("\nwrote [DIR]/p.lock\n"));
    let plain = project.read("p.lock");
    assert!(run(&["--profile", "ci"]).contains("\nwrote [DIR]/p.ci.lock\n"));
    assert!(
        run(&["--profile", "ci", "--profile", "loud"]).contains("\nwrote [DIR]/p.ci+loud.lock\n")
    );
    assert_eq!(project.read("p.lock"), plain);
    assert_ne!(project.read("p.ci.lock"), plain);
    // Held to that of its own, and told where there is none.
    assert!(run(&["--profile", "ci", "--locked"]).contains("1 cached"));
    let said =
        project.said(&mut project.command(&["run", "p.toml", "--profile", "loud", "--locked"]));
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.stderr.contains("p.loud.lock"), "{said:?}");
    // What they name is kept without a run of theirs.
    let gc = ["cache", "gc", "p.toml", "--keep-days", "0", "--json"];
    for name in ["runs", "pipelines"] {
        let _ = std::fs::remove_dir_all(project.path("cache").join(name));
    }
    project.said(&mut project.command(&gc));
    for arguments in [&[][..], &["--profile", "ci"], &["--profile", "ci", "--profile", "loud"]] {
        assert!(run(arguments).contains("0 ran, 1 cached"), "{arguments:?}");
    }
}

#[test]
fn a_file_may_be_extended_on_two_ways() {
    let project = project();
    project.write("p.toml", "extends = [\"lib/base.toml\", \"root.toml\"]\n");
    let pipeline = load(&project, &[], &[]);
    assert!(pipeline.stages[0].file.ends_with("lib/base.toml"));
    assert_eq!(pipeline.stages[0].line, 9);
    let config = pipeline.stages[0].stage.config();
    assert!(config["run"].as_str().unwrap().starts_with("echo root "), "the later one wins");
}
