//! `qpipe init`.

use std::fs;

use crate::check::{qpipe, text};

#[test]
fn the_starter_pipeline_passes_the_check_once_the_data_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = qpipe(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("pipeline.toml is written."));

    let check = qpipe(folder.path(), &["check", "pipeline.toml"]);
    assert_eq!(check.status.code(), Some(2), "the data is not there");
    let shown = text(&check.stderr);
    assert_eq!(shown.matches("qpipe::config::").count(), 3, "{shown}");
    assert_eq!(shown.matches("qpipe::config::missing-file").count(), 3, "{shown}");

    for part in ["train", "valid", "test"] {
        fs::create_dir_all(folder.path().join("data").join(part)).unwrap();
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
}
