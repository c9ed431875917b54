//! What can go wrong with a bundle.

use std::path::{Path, PathBuf};

use crate::cache::CacheError;
use crate::cache::error::At;

/// What can go wrong with a bundle.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum BundleError {
    /// The cache, or a file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// There is nothing to unpack.
    #[error("there is no file {}{}", path.display(), if path.is_dir() { ": that is a folder" } else { "" })]
    #[diagnostic(
        code(qpipe::bundle::missing),
        help(
            "name the bundle; `qpipe bundle FILE` writes one, FILE's name with the ending .qpipe"
        )
    )]
    Missing {
        /// The bundle.
        path: PathBuf,
    },
    /// The bundle is not what it should be.
    #[error("{} is no whole bundle: {reason}", path.display())]
    #[diagnostic(
        code(qpipe::bundle::broken),
        help("nothing of it was kept; get it once more from where it came from")
    )]
    Broken {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file stands where one of the bundle belongs.
    #[error("{} is there already, and is not what the bundle holds", path.display())]
    #[diagnostic(
        code(qpipe::bundle::there),
        help("unpack into another folder, or replace it with --force")
    )]
    There {
        /// The file, folder or link.
        path: PathBuf,
    },
    /// What the bundle holds does not fit.
    #[error("it holds {needed} bytes, and {} has room for {free}", path.display())]
    #[diagnostic(code(qpipe::bundle::room), help("make room, or name another cache"))]
    Room {
        /// Where it goes.
        path: PathBuf,
        /// Bytes in all.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Something that was to be packed is not what it was.
    #[error("{} {what}", path.display())]
    #[diagnostic(
        code(qpipe::bundle::changed),
        help("`qpipe cache verify --repair` finds what is damaged; run again, then pack")
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        what: &'static str,
    },
}

/// Result of the steps of packing and unpacking.
pub(super) type Result<T, E = BundleError> = std::result::Result<T, E>;

/// Says of a failed system call what it was meant to do.
pub(super) trait OrSay<T> {
    /// Adds what was tried and on what.
    fn or_say(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> OrSay<T> for std::io::Result<T> {
    fn or_say(self, action: &'static str, path: &Path) -> Result<T> {
        Ok(self.at(action, path)?)
    }
}
