//! A stage that failed, with all that its user needs to see.

use std::path::PathBuf;

use crate::task::{Blame, Failure};

/// A stage that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageFailure {
    /// Whose fault it is, what happened, what to do.
    pub failure: Failure,
    /// Its last lines.
    pub tail: Vec<String>,
    /// All its lines.
    pub log: Option<PathBuf>,
}

/// A failure from its parts.
pub fn failure(blame: Blame, message: impl Into<String>, help: Option<&str>) -> Failure {
    Failure { blame, message: message.into(), help: help.map(str::to_owned), key: None }
}

/// What the end of a process says, where it did not end with status 0.
pub fn ending(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended without a status".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGILL => " (SIGILL)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGFPE => " (SIGFPE)",
        libc::SIGINT => " (SIGINT)",
        _ => "",
    }
}
