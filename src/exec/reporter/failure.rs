//! A failed stage for people: its last lines, what happened, what to do, where its log is.

use std::path::Path;

use console::Term;

use super::terminal;

/// The text; every line ends with a line break.
pub(super) fn text(
    stage: &str,
    message: &str,
    help: Option<&str>,
    tail: &[String],
    log: Option<&Path>,
) -> String {
    let mut text = String::new();
    if !tail.is_empty() {
        text.push_str(&format!("\nlast lines of {stage}:\n"));
        for line in tail {
            text.push_str(&format!("  │ {line}\n"));
        }
    }
    let mut error = format!("\nerror: stage {stage} failed: {message}\n");
    if let Some(help) = help {
        error.push_str(&format!("  help: {help}\n"));
    }
    text.push_str(&terminal::wrapped(&error, 2, &Term::stderr()));
    if let Some(log) = log {
        text.push_str(&format!("  log:  {}\n", log.display()));
    }
    text
}
