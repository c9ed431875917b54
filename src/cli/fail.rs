//! Errors on standard error, and the exit codes that they mean.

use super::Exit;
use crate::cache::CacheError;
use crate::exec::reporter::terminal;
use crate::exec::{RunError, SlurmError, stderr, stdout};

/// Shows an error with its help, and gives its exit code back.
pub fn show(error: &impl miette::Diagnostic, exit: Exit) -> Exit {
    let mut text = format!("error: {error}\n");
    if let Some(help) = error.help() {
        text.push_str(&format!("  help: {help}\n"));
    }
    stderr::write(terminal::wrapped(&text, 2, &console::Term::stderr()).as_bytes());
    exit
}

/// Shows what ended a run; under `--json` as an event too.
pub fn run(error: RunError, json: bool) -> Exit {
    use miette::Diagnostic;
    let exit = Exit::from(&error);
    if json {
        let help = error.help().map(|help| help.to_string());
        let event = serde_json::json!({
            "event": "error", "message": error.to_string(), "help": help, "exit": exit as u8,
        });
        stdout::line(format_args!("{event}"));
    }
    show(&error, exit)
}

impl From<&RunError> for Exit {
    fn from(error: &RunError) -> Self {
        match error {
            RunError::Cache(error) => Self::from(error),
            RunError::Worker(_)
            | RunError::Lacking { .. }
            | RunError::TooLarge { .. }
            | RunError::Io { .. } => Self::Machine,
            RunError::Target(_)
            | RunError::LockedSweep
            | RunError::GuardedSweep { .. }
            | RunError::NoSuchGpu { .. }
            | RunError::Inside { .. } => Self::Usage,
            RunError::Left { .. } => Self::Bug,
            RunError::InputChanged { .. }
            | RunError::Locked { .. }
            | RunError::Definition { .. }
            | RunError::LockFolder { .. }
            | RunError::Slurm(SlurmError::State { .. }) => Self::Blocked,
            RunError::Slurm(_) | RunError::HandOver { .. } => Self::Machine,
            RunError::Git { .. } => Self::Machine,
            RunError::Against { .. } => Self::Usage,
            RunError::Interrupted => Self::Interrupted,
        }
    }
}

impl From<&CacheError> for Exit {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::Io { .. } => Self::Machine,
            CacheError::InputMissing { .. }
            | CacheError::LockFileMissing { .. }
            | CacheError::NotStorable { .. }
            | CacheError::NotUtf8 { .. } => Self::Usage,
            CacheError::StillWritten { .. }
            | CacheError::Layout { .. }
            | CacheError::Busy { .. }
            | CacheError::LockFile { .. }
            | CacheError::NewerLockFile { .. } => Self::Blocked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_leaves_stages_over_is_our_fault() {
        let error = RunError::Left { left: 1, names: vec!["a".to_owned()], stages: 1 };
        assert_eq!(Exit::from(&error), Exit::Bug);
    }
}
