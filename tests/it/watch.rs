//! `--watch`: again after each change.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::project::{Project, signal};

/// The lines that a process prints to standard error.
struct Lines(Receiver<String>);

impl Lines {
    fn of(child: &mut Child) -> Self {
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self(lines)
    }

    /// Those up to one that is waited for.
    fn until(&self, last: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.0.recv_timeout(Duration::from_secs(20));
            let line = line.unwrap_or_else(|_| panic!("waited for {last:?} after {seen:?}"));
            seen.push(line);
            if seen[seen.len() - 1].contains(last) {
                return seen;
            }
        }
    }
}

#[test]
fn a_run_is_done_again_after_a_change_until_it_is_interrupted() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "cat $QPIPE_IN_SRC > $QPIPE_OUT_X"
files = { src = "src.txt" }
outputs = { x = "x" }
"#,
    );
    project.write("src.txt", "one");
    let mut child = project.start(&["--watch"]);
    let lines = Lines::of(&mut child);
    lines.until("watching for changes");
    assert_eq!(project.artifact("a/x"), "one");

    project.write("src.txt", "two");
    let said = lines.until("watching for changes");
    assert_eq!(said[0], "a: running (file src.txt changed)");
    assert_eq!(project.artifact("a/x"), "two");

    // A file that it extends counts as its own.
    let whole = project.read("p.toml");
    project.write("base/base.toml", &whole.replace("src.txt", "../src.txt"));
    project.write("p.toml", "extends = \"base/base.toml\"\n");
    lines.until("watching for changes");
    let base = project.read("base/base.toml");
    project.write("base/base.toml", &base.replace("cat", "echo more; cat"));
    lines.until("a: running");
    lines.until("watching for changes");
    project.write("p.toml", &whole);
    lines.until("watching for changes");

    // A mistake does not end it; what is beside the file may be what was missing.
    let good = project.read("p.toml");
    project.write("p.toml", &good.replace("src.txt", "other.txt"));
    lines.until("other.txt");
    lines.until("watching for changes");
    project.write("other.txt", "three");
    lines.until("a: running");
    lines.until("watching for changes");
    assert_eq!(project.artifact("a/x"), "three");

    signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_external_data_of_a_model_counts_as_well() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "cat weights.data > $QPIPE_OUT_X"
files = { m = "model.onnx" }
outputs = { x = "x" }
"#,
    );
    // A model with a graph with an initializer with the entry `location = weights.data`.
    let location = "\u{a}\u{8}location\u{12}\u{c}weights.data";
    let entry = format!("\u{6a}{}{location}", char::from(location.len() as u8));
    let tensor = format!("\u{2a}{}{entry}", char::from(entry.len() as u8));
    project.write("model.onnx", &format!("\u{3a}{}{tensor}", char::from(tensor.len() as u8)));
    project.write("weights.data", "one");
    let mut child = project.start(&["--watch"]);
    let lines = Lines::of(&mut child);
    lines.until("watching for changes");
    assert_eq!(project.artifact("a/x"), "one");
    project.write("weights.data", "two");
    lines.until("a: running");
    lines.until("watching for changes");
    assert_eq!(project.artifact("a/x"), "two");
    signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_interrupt_in_the_middle_of_a_run_ends_it_as_without_watching() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"touch started; sleep 600\"\noutputs = { x = \"x\" }\n",
    );
    let mut child = project.start(&["--watch"]);
    crate::project::wait_for("the stage", || project.path("started").exists());
    signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_check_is_done_again() {
    let project = Project::new("[stages.a]\nkind = \"comand\"\n");
    let mut child = project.command(&["check", "p.toml", "--watch"]).spawn().unwrap();
    let lines = Lines::of(&mut child);
    lines.until("1 mistake");
    lines.until("watching for changes");
    project.write(
        "p.toml",
        "[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs = { x = \"x\" }\n",
    );
    assert_eq!(lines.until("watching for changes").len(), 1, "no mistakes");
    signal(child.id(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
