//! What is printed and told, where it cannot be.

use crate::project::Project;

/// A part of a plan is no plan; a reader that is gone is no fault.
#[test]
fn what_cannot_be_written_is_told() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"touch $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    for words in [&["plan", "p.toml", "--json"][..], &["graph", "p.toml"], &["doctor"], &["schema"]]
    {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut command = project.command(words);
        let output = command.stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {told}");
        assert!(told.contains("error: standard output cannot be written: No space left"), "{told}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = project.command(words);
        let output = command.stdout(writer).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("panicked") && !told.contains("cannot be written"), "{told}");
        assert_ne!(output.status.code(), Some(101), "{words:?}: {told}");
    }
}

/// The exit code says what its text cannot.
#[test]
fn errors_that_cannot_be_written_keep_their_exit_code() {
    let project = Project::new("[stages.a]\nkind = \"command\"\nrun = \"exit 1\"\nepochs = 1\n");
    project.write(
        "good.toml",
        "[stages.a]\nkind = \"command\"\nrun = \"exit 7\"\noutputs = { x = \"x\" }\n",
    );
    for (words, code) in [
        (&["check", "p.toml"][..], 2),
        (&["check", "nofile.toml"], 2),
        (&["plan", "good.toml", "--force", "zz"], 2),
        (&["cache", "--cache", "nowhere", "verify"], 2),
        (&["log", "good.toml", "zz"], 2),
        (&["run", "good.toml"], 1),
        (&["zz"], 2),
    ] {
        let ended = |stderr: std::process::Stdio| {
            // Annotations are told there as well.
            let mut command = project.command(words);
            command.env("GITHUB_ACTIONS", "true").stderr(stderr).output().unwrap().status.code()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(ended(writer.into()), Some(code), "{words:?}");
        let full = std::fs::File::create("/dev/full").unwrap();
        assert_eq!(ended(full.into()), Some(code), "{words:?}");
    }
}
