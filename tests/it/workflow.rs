//! The example workflow of GitHub Actions: its `run:` steps, for real, in their order.

use std::path::Path;
use std::process::{Command, Output};

const WORKFLOW: &str = include_str!("../../docs/examples/github-actions.yml");

const PIPELINE: &str = r#"
[stages.trained]
kind = "command"
run = "cat $QPIPE_IN_SRC > $QPIPE_OUT_X; echo trained >> ran"
files = { src = "data.txt" }
outputs = { x = "x.txt" }

[stages.measured]
kind = "command"
run = "echo '{\"top1\": 0.9}' > $QPIPE_OUT_M; echo measured >> ran"
inputs = { x = "trained.x" }
outputs = { m = { file = "m.json", type = "metrics" } }

[guards.accuracy]
metric = "measured.top1"
max_drop = 0.01
min = 0.8
"#;

/// The commands of the workflow's `run:` keys. It is our own file: no more of YAML is needed.
fn steps() -> Vec<String> {
    let mut lines = WORKFLOW.lines().peekable();
    let mut steps = Vec::new();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(command) = line.trim_start().strip_prefix("run: ") else { continue };
        if command != "|" {
            steps.push(command.to_owned());
            continue;
        }
        let mut block = String::new();
        let deeper = |line: &&str| line.starts_with(&" ".repeat(indent + 1));
        while let Some(line) = lines.next_if(deeper) {
            block.push_str(&format!("{}\n", line.trim_start()));
        }
        steps.push(block);
    }
    steps
}

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"];
    let output = Command::new("git").arg("-C").arg(folder).args(identity).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Runs a step as a job does: GitHub's shell, its variables.
fn step(workspace: &Path, command: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_qpipe"));
    let path = std::env::var("PATH").unwrap();
    Command::new("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", command])
        .current_dir(workspace)
        .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
        .env("CI", "true")
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_WORKSPACE", workspace)
        .env("GITHUB_STEP_SUMMARY", workspace.join("../summary.md"))
        .env("QPIPE_CACHE", workspace.join(".qpipe/cache"))
        .output()
        .unwrap()
}

#[test]
fn the_second_job_finds_everything_in_the_restored_cache() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("pipeline.toml"), PIPELINE).unwrap();
    std::fs::write(repository.join("data.txt"), "data").unwrap();
    std::fs::write(repository.join(".gitignore"), ".qpipe\nran\n").unwrap();
    git(folder.path(), &["init", "-q", "repository"]);
    // A developer runs it and commits the lock file.
    let made = step(&repository, "qpipe run pipeline.toml");
    assert!(made.status.success(), "{made:?}");
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-qm", "one"]);
    let steps = steps();
    assert_eq!(steps.len(), 3, "{steps:?}");
    let mut saved = None;
    for expected in ["trained\nmeasured\n", ""] {
        let workspace = folder.path().join(format!("job{}", u8::from(saved.is_some())));
        git(folder.path(), &["clone", "-q", "repository", workspace.to_str().unwrap()]);
        if let Some(saved) = &saved {
            // What actions/cache restores.
            std::fs::create_dir(workspace.join(".qpipe")).unwrap();
            std::fs::rename(saved, workspace.join(".qpipe/cache")).unwrap();
        }
        for command in &steps {
            let output = step(&workspace, command);
            assert!(output.status.success(), "{command}: {output:?}");
        }
        let ran = std::fs::read_to_string(workspace.join("ran")).unwrap_or_default();
        assert_eq!(ran, expected);
        let clean = Command::new("git").arg("-C").arg(&workspace).args(["status", "-s"]).output();
        assert_eq!(String::from_utf8_lossy(&clean.unwrap().stdout), "", "no file changed");
        saved = Some(workspace.join(".qpipe/cache"));
    }
    let summary = std::fs::read_to_string(folder.path().join("summary.md")).unwrap();
    let row =
        "| accuracy | measured.top1 | 0.9 | 0.9 | 0 (+0.0 %) | max\\_drop 0.01, min 0.8 | held |";
    assert_eq!(summary.matches(row).count(), 2, "{summary}");
    assert!(summary.contains("\n2 ran, 0 cached in "), "{summary}");
    assert!(summary.contains("\n0 ran, 2 cached in "), "{summary}");
}
