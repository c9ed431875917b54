//! A cache on a file system without hard links: link(2) is refused.

use super::sandbox::without_links;
use crate::project::{Project, Said};

const FOLDER: &str = r#"
[stages.a]
kind = "command"
run = "echo a >> ran; mkdir -p $QPIPE_OUT_F/below; echo one > $QPIPE_OUT_F/one; echo two > $QPIPE_OUT_F/below/two"
outputs = { f = "folder" }

[stages.b]
kind = "command"
run = "echo b >> ran; cat $QPIPE_IN_F/one $QPIPE_IN_F/below/two > $QPIPE_OUT_X"
inputs = { f = "a" }
outputs = { x = "x" }
"#;

fn qpipe(project: &Project, arguments: &[&str]) -> Said {
    project.said(without_links(&mut project.command(arguments)))
}

#[test]
fn folders_are_copies_that_verify_covers_and_repair_mends() {
    let project = Project::new(FOLDER);
    let said = qpipe(&project, &["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(project.ran(), ["a", "b"]);
    assert_eq!(project.artifact("b/x"), "one\ntwo\n");
    let copy = project.path("cache/view/p/a/folder/below/two").canonicalize().unwrap();
    assert!(copy.starts_with(project.path("cache/trees").canonicalize().unwrap()));
    let links = std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&copy).unwrap());
    assert_eq!(links, 1, "a copy");
    project.verify();
    qpipe(&project, &["run", "p.toml"]);
    assert!(project.ran().is_empty());
    // A bit of the copy flips; the object is whole.
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, "tvo\n").unwrap();
    let said = qpipe(&project, &["cache", "verify"]);
    let named = format!("{}: content has digest", copy.display());
    let folder = project.path("").canonicalize().unwrap();
    let named = named.replace(folder.to_str().unwrap(), "[DIR]");
    assert!(said.code == Some(4) && said.stderr.contains(&named), "{said:?} {named}");
    assert_eq!(qpipe(&project, &["cache", "verify", "--repair"]).code, Some(0));
    let said = qpipe(&project, &["run", "p.toml"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(std::fs::read(&copy).unwrap(), b"two\n");
    assert_eq!(project.artifact("b/x"), "one\ntwo\n");
    project.verify();
    // A name that is gone is made anew from its object, without a run.
    project.ran();
    std::fs::remove_file(&copy).unwrap();
    assert_eq!(qpipe(&project, &["run", "p.toml"]).code, Some(0));
    assert!(project.ran().is_empty());
    assert_eq!(std::fs::read(&copy).unwrap(), b"two\n");
}
