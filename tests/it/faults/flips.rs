//! A thousand flipped bits: each is found, and a repair makes the next run right.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use qpipe::cache::Cache;

use super::random::Random;
use super::sandbox::without_links;
use crate::project::Project;

const PIPELINE: &str = r#"
[stages.a]
kind = "command"
run = "echo some longer text of stage a > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "mkdir -p $QPIPE_OUT_F/below && cat $QPIPE_IN_X > $QPIPE_OUT_F/below/one && echo two > $QPIPE_OUT_F/two"
inputs = { x = "a" }
outputs = { f = "folder" }

[stages.c]
kind = "command"
run = "cat $QPIPE_IN_F/below/one $QPIPE_IN_F/two > $QPIPE_OUT_X"
inputs = { f = "b" }
outputs = { x = "x" }
"#;

const WHOLE: &str = "some longer text of stage a\ntwo\n";

/// Files whose content counts: objects and manifests, copies in trees, the journal.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn each_of_a_thousand_flipped_bits_is_found_and_repaired() {
    let mut random = Random::new(0);
    let project = Project::new(PIPELINE);
    // Copies, so that those can be flipped alone.
    let run = || project.said(without_links(&mut project.command(&["run", "p.toml"])));
    assert_eq!(run().code, Some(0));
    assert_eq!(run().code, Some(0));
    let cache = project.path("cache");
    let mut all = vec![cache.join("journal")];
    files(&cache.join("objects"), &mut all);
    files(&cache.join("trees"), &mut all);
    assert!(all.len() >= 7, "{all:?}");
    let found = || Cache::at(&cache).unwrap().verify().unwrap().faults.len();
    assert_eq!(found(), 0);
    for _ in 0..1000 {
        let path = random.of(&all).clone();
        let bit = random.below(8 * usize::try_from(path.metadata().unwrap().len()).unwrap());
        flip(&path, bit);
        assert!(found() > 0, "bit {bit} of {}", path.display());
        flip(&path, bit);
    }
    assert_eq!(found(), 0);
    for turn in 0..12 {
        for _ in 0..=turn % 4 {
            let path = random.of(&all).clone();
            let bytes = path.metadata().map_or(0, |metadata| metadata.len());
            if bytes > 0 {
                flip(&path, random.below(8 * usize::try_from(bytes).unwrap()));
            }
        }
        if found() > 0 {
            assert_eq!(project.qpipe(&["cache", "verify"]).code, Some(4));
        }
        let said = project.qpipe(&["cache", "verify", "--repair"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        project.verify();
        let said = run();
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(project.artifact("c/x"), WHOLE, "{said:?}");
        assert_eq!(project.artifact("b/folder/two"), "two\n", "{said:?}");
        project.verify();
    }
}
