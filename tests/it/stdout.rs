//! What is printed, where it cannot be.

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
