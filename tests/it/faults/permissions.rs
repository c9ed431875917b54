//! Folders of the cache that lose their permissions, before a run and during one.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::project::{Project, Said, wait_for};

const PIPELINE: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "echo $WORD > $QPIPE_OUT_X"
env = { WORD = "${params.word}" }
files = { p = "src" }
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "if test -e wait; then touch waiting; while test -e wait; do sleep 0.005; done; fi; mkdir $QPIPE_OUT_F && cat $QPIPE_IN_X > $QPIPE_OUT_F/one && echo some line"
inputs = { x = "a" }
outputs = { f = "folder" }
"#;

const NOBODY: u32 = 65534;

/// Permissions bind everybody but root.
struct Weak {
    project: Project,
    root: bool,
}

impl Weak {
    /// `None`, with a word, where another user cannot run the program.
    fn new() -> Option<Self> {
        // SAFETY: no memory is passed, and it cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        let weak = Self { project: Project::new(PIPELINE), root };
        weak.project.write("src/file", "source");
        if root {
            std::os::unix::fs::chown(weak.project.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
            let mut command = weak.command(&["--version"]);
            if !command.output().is_ok_and(|output| output.status.success()) {
                println!("skipped: the user nobody cannot run {}", env!("CARGO_BIN_EXE_qpipe"));
                return None;
            }
        }
        Some(weak)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        command.env("QPIPE_MACHINE", self.project.path("runtime"));
        if self.root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run(&self, word: &str) -> Said {
        let set = format!("params.word={word}");
        self.project.said(&mut self.command(&["run", "p.toml", "--set", &set]))
    }

    /// Success, or a clear error.
    fn judge(&self, said: &Said, what: &str) {
        if said.code == Some(0) {
            return;
        }
        let named = said.stderr.lines().any(|line| {
            line.contains("Permission denied")
                && (line.contains("[DIR]/") || line.contains(" p.lock"))
        });
        assert!(matches!(said.code, Some(1 | 3)) && named, "{what}: {said:?}");
    }

    /// With permissions again, all is well.
    fn again(&self, word: &str, what: &str) {
        let said = self.run(word);
        assert_eq!(said.code, Some(0), "{what}: {said:?}");
        assert_eq!(self.project.artifact("b/folder/one"), format!("{word}\n"), "{what}: {said:?}");
        let said = self.project.said(&mut self.command(&["cache", "verify"]));
        assert_eq!(said.code, Some(0), "{what}: {said:?}");
    }
}

fn mode(path: &Path, mode: u32) -> u32 {
    let before = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    before
}

/// All that is in a cache.
const PLACES: &[&str] = &[
    "",
    "journal",
    "objects",
    "trees",
    "index",
    "locks",
    "active",
    "scratch",
    "runs",
    "logs",
    "view",
    "view/p",
    "view/p/a",
    "pipelines",
    "lock",
    "CACHEDIR.TAG",
    "../p.lock",
    "..",
];

#[test]
fn a_place_without_permission_before_a_run() {
    let Some(weak) = Weak::new() else { return };
    weak.again("one", "first");
    for (number, place) in PLACES.iter().enumerate() {
        let path = weak.project.path("cache").join(place);
        assert!(path.exists(), "{place} is missing");
        for (number, bits) in [0o000, 0o444, 0o555].into_iter().map(move |bits| (number, bits)) {
            let what = format!("{place} {bits:o}");
            if *place == ".." && bits != 0o555 {
                continue;
            }
            let before = mode(&path, bits);
            for word in ["one", &format!("w{number}.{bits}")] {
                weak.judge(&weak.run(word), &what);
            }
            mode(&path, before);
            weak.again("one", &what);
            weak.again(&format!("w{number}.{bits}"), &what);
        }
    }
}

#[test]
fn a_place_that_loses_its_permission_during_a_run() {
    let Some(weak) = Weak::new() else { return };
    weak.again("one", "first");
    for (number, place) in PLACES.iter().enumerate() {
        let path = weak.project.path("cache").join(place);
        if !path.exists() || *place == ".." {
            continue;
        }
        for bits in [0o000, 0o555] {
            let (what, word) = (format!("{place} {bits:o}"), format!("w{number}.{bits}"));
            weak.project.write("wait", "");
            let set = format!("params.word={word}");
            let runner = weak.command(&["run", "p.toml", "--set", &set]).spawn().unwrap();
            // The stage runs as another user, who may not write here.
            wait_for("the stage", || weak.project.path("waiting").exists());
            let before = mode(&path, bits);
            std::fs::remove_file(weak.project.path("wait")).unwrap();
            let ended = runner.wait_with_output().unwrap();
            let folder = weak.project.path("").display().to_string();
            let stderr = String::from_utf8_lossy(&ended.stderr)
                .replace(folder.trim_end_matches('/'), "[DIR]");
            let said = Said { code: ended.status.code(), stdout: String::new(), stderr };
            weak.judge(&said, &what);
            mode(&path, before);
            std::fs::remove_file(weak.project.path("waiting")).unwrap();
            weak.again(&word, &what);
        }
    }
}
