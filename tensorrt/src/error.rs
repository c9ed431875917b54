//! Errors.

use std::path::PathBuf;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A library that is not there or does not load.
    #[error("{what}: {reason}")]
    Library {
        /// Its name or path.
        what: String,
        /// What the loader says.
        reason: String,
    },
    /// The library refuses a model or an engine.
    #[error("{what}: {cause}")]
    Refused {
        /// What was asked of it: `cannot read the model`.
        what: &'static str,
        /// Its first error, which is the cause of those behind it.
        cause: String,
    },
    /// CUDA refuses something.
    #[error("CUDA: {0}")]
    Cuda(String),
    /// Values or shapes that do not belong to the engine.
    #[error("{0}")]
    Input(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What gives an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A file that cannot be read or written.
    pub fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
