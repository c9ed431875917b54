//! A cache on a disk that fills up, at each size.

use super::sandbox::{in_namespace, mount_tmpfs, unmount};
use crate::project::{Project, Said};

const PIPELINE: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "head -c 9000 /dev/zero > $QPIPE_OUT_X && echo $WORD >> $QPIPE_OUT_X"
env = { WORD = "${params.word}" }
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "mkdir -p $QPIPE_OUT_F/below && cat $QPIPE_IN_X > $QPIPE_OUT_F/below/one && echo two > $QPIPE_OUT_F/two; echo some line; true"
inputs = { x = "a" }
outputs = { f = "folder" }

[stages.c]
kind = "command"
run = "cat $QPIPE_IN_F/below/one $QPIPE_IN_F/two | tail -c +9001 > $QPIPE_OUT_X"
inputs = { f = "b" }
outputs = { x = "x" }
"#;

/// Success, or a clear error of the machine.
fn judge(said: &Said, what: &str) -> bool {
    if said.code == Some(0) {
        return true;
    }
    let named = said
        .stderr
        .lines()
        .any(|line| line.contains("No space left on device") && line.contains("[DIR]/cache"));
    assert!(said.code == Some(3) && named, "{what}: {said:?}");
    false
}

/// Runs on a cache with so much room, then again with more.
fn on_disk_of(options: &str, fill: Option<usize>, what: &str) -> bool {
    let project = Project::new(PIPELINE);
    let cache = project.path("cache");
    mount_tmpfs(&cache, options);
    if let Some(pages) = fill {
        // A cache that is in use already, and a disk that others have filled but for some pages.
        project.run(&[]);
        let filler = cache.join("filler");
        let free = free_bytes(&cache).saturating_sub(pages * 4096);
        std::fs::write(&filler, vec![0; free]).unwrap();
    }
    let said = project.qpipe(&["run", "p.toml", "--set", "params.word=two"]);
    let succeeded = judge(&said, what);
    if succeeded {
        assert_eq!(project.artifact("c/x"), "two\ntwo\n", "{what}: {said:?}");
    }
    let _ = std::fs::remove_file(cache.join("filler"));
    if fill.is_some() {
        project.verify();
    }
    // There is room again: nothing half-written is used.
    let _ = std::process::Command::new("mount")
        .args(["-o", "remount,size=16m,nr_inodes=10000"])
        .arg(&cache)
        .status();
    let said = project.run(&["--set", "params.word=two"]);
    assert_eq!(project.artifact("c/x"), "two\ntwo\n", "{what}: {said:?}");
    project.verify();
    unmount(&cache);
    succeeded
}

fn free_bytes(path: &std::path::Path) -> usize {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: zeros are a valid `statvfs`; it holds numbers only.
    let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and the system writes no more than a `statvfs`.
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut room) }, 0);
    usize::try_from(room.f_bavail * room.f_frsize).unwrap()
}

#[test]
fn a_disk_of_any_size_ends_in_success_or_a_clear_error() {
    if !in_namespace("faults::full_disk::a_disk_of_any_size_ends_in_success_or_a_clear_error") {
        return;
    }
    let (mut good, mut bad) = (0, 0);
    let mut count = |succeeded: bool| if succeeded { good += 1 } else { bad += 1 };
    for pages in (1..52).step_by(2) {
        count(on_disk_of(&format!("size={}k", 4 * pages), None, &format!("{pages} pages")));
    }
    for inodes in (2..62).step_by(3) {
        let options = format!("size=16m,nr_inodes={inodes}");
        count(on_disk_of(&options, None, &format!("{inodes} inodes")));
    }
    for pages in (0..40).step_by(2) {
        count(on_disk_of("size=1m", Some(pages), &format!("{pages} pages left")));
    }
    println!("{good} runs succeeded, {bad} ended in an error");
    assert!(good > 5 && bad > 20, "{good} and {bad}");
}
