//! Every system call of the runner fails once, the first, the second and so on: no room, no
//! permission, a broken disk. (strace(1) makes it so.)

use std::process::Command;

use super::random::full;
use crate::project::{Project, Said};

const PIPELINE: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "echo $WORD > $QPIPE_OUT_X"
env = { WORD = "${params.word}" }
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "mkdir $QPIPE_OUT_F && cat $QPIPE_IN_X > $QPIPE_OUT_F/one && echo some line"
inputs = { x = "a" }
outputs = { f = "folder" }
"#;

/// Runs with the `nth` call of that name failing; `None` if it did not come to that.
fn run(project: &Project, call: &str, error: &str, nth: usize) -> Option<Said> {
    let mut command = Command::new("strace");
    let trace = project.path("trace");
    command
        .args(["-qq", "-y", "-o"])
        .arg(&trace)
        .args([
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={call}:error={error}:when={nth}"),
        ])
        .arg(env!("CARGO_BIN_EXE_qpipe"))
        .args(["run", "p.toml", "-j1", "--set", "params.word=two"])
        .current_dir(project.path(""))
        .env("QPIPE_CACHE", project.path("cache"))
        .env("QPIPE_MACHINE", project.path(".machine"))
        .env("NO_COLOR", "1");
    let said = project.said(&mut command);
    let trace = project.read("trace");
    let hit = trace.lines().find(|line| line.contains("(INJECTED)"))?;
    // The runtime's own wake-up call never fails.
    if hit.contains("anon_inode") {
        return Some(Said { code: Some(0), ..said });
    }
    Some(said)
}

/// Fails each call of that name once.
fn each(call: &str, error: &str, message: &str) {
    let mut failed = 0;
    for nth in 1.. {
        assert!(nth < 400, "{call} has no end");
        if !full() && nth % 2 == 0 && nth > 8 {
            continue;
        }
        let project = Project::new(PIPELINE);
        project.run(&[]);
        let Some(said) = run(&project, call, error, nth) else {
            println!("{call} {error}: {failed} of {} made the run fail", nth - 1);
            return;
        };
        if said.code != Some(0) {
            failed += 1;
            let clear = said.stderr.contains(message) && !said.stderr.contains("panicked");
            assert!(clear, "{call} {error} {nth}: {said:?}\n{}", project.read("trace"));
            // A stage that cannot be started is its user's affair.
            assert!(matches!(said.code, Some(1..=4)), "{call} {error} {nth}: {said:?}");
        }
        project.verify();
        let said = project.run(&["--set", "params.word=two"]);
        assert_eq!(project.artifact("b/folder/one"), "two\n", "{call} {error} {nth}: {said:?}");
        project.verify();
    }
}

fn has_strace() -> bool {
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let there = tried.is_ok_and(|status| status.success());
    if !there {
        println!("skipped: strace is not installed, or not allowed here");
    }
    there
}

#[test]
fn no_room_for_any_write() {
    if has_strace() {
        for call in ["write", "mkdir,mkdirat", "symlink,symlinkat", "link,linkat"] {
            each(call, "ENOSPC", "No space left on device");
        }
    }
}

#[test]
fn no_permission_for_any_change() {
    if has_strace() {
        for call in ["rename,renameat,renameat2", "unlink,unlinkat,rmdir", "chmod,fchmod,fchmodat"]
        {
            each(call, "EACCES", "Permission denied");
        }
    }
}

#[test]
fn no_flush_succeeds() {
    if has_strace() {
        each("fsync,fdatasync", "EIO", "Input/output error");
    }
}
