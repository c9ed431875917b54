//! The worker's one error: what happened, where, whose fault it is and what to do.

use qpipe::task::{Blame, Failure};

/// The worker's error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whose fault it is.
    pub blame: Blame,
    /// What happened and where: file, index or node are named.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The key of the stage's table that it is about, so that the runner can show its line.
    pub key: Option<&'static str>,
    /// There was too little memory for what was asked: less of it may do.
    pub out_of_memory: bool,
}

/// A result with the worker's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), help: None, key: None, out_of_memory: false }
    }

    /// The pipeline, the data or the model is at fault.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Blame::User, message)
    }

    /// The machine is at fault: a missing library, a full disk.
    pub fn machine(message: impl Into<String>) -> Self {
        Self::new(Blame::Machine, message)
    }

    /// The program is at fault.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Blame::Bug, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says which key of the stage's table it is about, if that is not known yet.
    #[must_use]
    pub fn key(mut self, key: &'static str) -> Self {
        self.key = self.key.or(Some(key));
        self
    }

    /// Puts where it happened in front: `node "conv1" (Conv): …`.
    #[must_use]
    pub fn at(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// An input/output error of a file.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let blame = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => Blame::User,
            _ => Blame::Machine,
        };
        Self::new(blame, format!("{}: {error}", path.display()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let key = error.key.map(Box::from);
        Self { blame: error.blame, message: error.message, help: error.help, key }
    }
}
