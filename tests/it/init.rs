//! `qpipe init`.

use std::fs;

use crate::check::{qpipe, text};

#[test]
fn the_starter_pipeline_passes_the_check_once_the_data_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = qpipe(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("pipeline.toml is written."));

    let written = fs::read_to_string(folder.path().join("pipeline.toml")).unwrap();
    assert!(written.starts_with("#:schema ./pipeline.schema.json\n# A pipeline of qpipe"));
    let schema = fs::read_to_string(folder.path().join("pipeline.schema.json")).unwrap();
    assert_eq!(schema, text(&qpipe(folder.path(), &["schema"]).stdout));
    assert!(
        serde_json::from_str::<serde_json::Value>(&schema).unwrap()["properties"]["stages"]
            .is_object()
    );

    let check = qpipe(folder.path(), &["check", "pipeline.toml"]);
    assert_eq!(check.status.code(), Some(2), "the data is not there");
    let shown = text(&check.stderr);
    assert_eq!(shown.matches("qpipe::config::").count(), 3, "{shown}");
    assert_eq!(shown.matches("qpipe::config::missing-file").count(), 3, "{shown}");

    for part in ["train", "valid", "test"] {
        for class in ["cat", "dog"] {
            fs::create_dir_all(folder.path().join("data").join(part).join(class)).unwrap();
        }
    }
    let check = qpipe(folder.path(), &["check", "pipeline.toml"]);
    assert_eq!(text(&check.stderr), "");
    assert_eq!(
        text(&check.stdout),
        "pipeline.toml: ok, 3 data sets, 10 stages, 20 with all cells of their matrices\n"
    );
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.toml"), "mine").unwrap();
    let output = qpipe(folder.path(), &["init", "mine.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "qpipe init: mine.toml exists already; name another file, or remove it\n"
    );
    assert_eq!(fs::read_to_string(folder.path().join("mine.toml")).unwrap(), "mine");
    assert_eq!(qpipe(folder.path(), &["init", "none/mine.toml"]).status.code(), Some(2));
    let output = qpipe(folder.path(), &["init", "none/"]);
    assert_eq!(
        text(&output.stderr),
        "qpipe init: the folder none/ does not exist; create it first\n"
    );
    fs::write(folder.path().join("pipeline.schema.json"), "mine").unwrap();
    assert_eq!(qpipe(folder.path(), &["init", "other.toml"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(folder.path().join("pipeline.schema.json")).unwrap(), "mine");
}

#[test]
fn without_a_schema_no_line_names_it() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(qpipe(folder.path(), &["init", "--no-schema"]).status.code(), Some(0));
    assert!(!folder.path().join("pipeline.schema.json").exists());
    let written = fs::read_to_string(folder.path().join("pipeline.toml")).unwrap();
    assert!(written.starts_with("# A pipeline of qpipe"));
}

#[test]
fn manual_pages_one_or_all() {
    let folder = tempfile::tempdir().unwrap();
    let page = text(&qpipe(folder.path(), &["man", "cache", "gc"]).stdout);
    assert!(page.contains(".TH") && page.contains("keep\\-days"), "{page}");
    assert_eq!(qpipe(folder.path(), &["man", "nothing"]).status.code(), Some(2));
    assert_eq!(qpipe(folder.path(), &["man", "--out", "man1"]).status.code(), Some(0));
    for name in ["qpipe.1", "qpipe-run.1", "qpipe-cache-gc.1"] {
        let page = fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
        assert!(page.contains(".SH"), "{name}");
    }
}

#[test]
fn bash_takes_the_completions() {
    let folder = tempfile::tempdir().unwrap();
    let script = text(&qpipe(folder.path(), &["completions", "bash"]).stdout);
    fs::write(folder.path().join("script"), &script).unwrap();
    let ask = "source ./script; COMP_WORDS=(qpipe run --keep); COMP_CWORD=2; _qpipe qpipe --keep run; echo \"${COMPREPLY[@]}\"";
    let Ok(said) =
        std::process::Command::new("bash").args(["-c", ask]).current_dir(folder.path()).output()
    else {
        eprintln!("skipped: there is no bash");
        return;
    };
    assert_eq!(text(&said.stdout), "--keep-going\n", "{}", text(&said.stderr));
}
