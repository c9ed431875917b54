//! What can go wrong with the cache and with the inputs that it digests.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with the cache and with the inputs that it digests.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CacheError {
    /// The system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    #[diagnostic(
        code(qpipe::cache::io),
        help("check the folder's owner and permissions, and the room left on its disk")
    )]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An input of the user's is not there.
    #[error("input {} does not exist", path.display())]
    #[diagnostic(
        code(qpipe::cache::input_missing),
        help("paths are relative to the pipeline file")
    )]
    InputMissing {
        /// Its absolute path.
        path: PathBuf,
    },
    /// A lock file that says what a pipeline needs is not there.
    #[error("{} is not there: nothing was computed yet", path.display())]
    #[diagnostic(
        code(qpipe::cache::lock_file_missing),
        help(
            "`qpipe run` of the pipeline file writes it; paths here are relative to the working folder"
        )
    )]
    LockFileMissing {
        /// Its path.
        path: PathBuf,
    },
    /// A file or folder that cannot have a digest.
    #[error("{} cannot be digested: {reason}", path.display())]
    #[diagnostic(code(qpipe::cache::not_storable))]
    NotStorable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// What to do about it.
        #[help]
        help: String,
    },
    /// A process still writes to a finished output.
    #[error("{} is still open for writing after its stage ended", path.display())]
    #[diagnostic(
        code(qpipe::cache::still_written),
        help("a program of the stage goes on in the background: let the stage wait for it")
    )]
    StillWritten {
        /// The output.
        path: PathBuf,
    },
    /// Stages are told the cache's path in JSON, which holds UTF-8 alone.
    #[error("the cache's path {path:?} is not UTF-8")]
    #[diagnostic(
        code(qpipe::cache::not_utf8),
        help(
            "tasks and records are JSON and can name no such path: use another folder with --cache or QPIPE_CACHE"
        )
    )]
    NotUtf8 {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to another version of qpipe.
    #[error("{} is a cache of another layout: {found}", path.display())]
    #[diagnostic(
        code(qpipe::cache::layout),
        help("use another folder with --cache, or remove this one")
    )]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What its marker says.
        found: String,
    },
    /// Another process works on the cache.
    #[error("the cache {} is in use by {}", path.display(), processes(pids))]
    #[diagnostic(code(qpipe::cache::busy), help("wait until that run has ended, then try again"))]
    Busy {
        /// The cache.
        path: PathBuf,
        /// Who uses it.
        pids: Vec<i32>,
    },
    /// A lock file that cannot be read.
    #[error("{} is no lock file of qpipe: {reason}", path.display())]
    #[diagnostic(
        code(qpipe::cache::lock_file),
        help("restore it from version control, or remove it: a run writes it anew")
    )]
    LockFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A lock file that a newer qpipe wrote.
    #[error("{} has format {format}, which this qpipe does not know", path.display())]
    #[diagnostic(
        code(qpipe::cache::newer_lock_file),
        help("a newer qpipe wrote it: use that, or remove the file, and a run writes it anew")
    )]
    NewerLockFile {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
}

impl CacheError {
    /// Whether a person or another program is in the way, rather than the machine.
    pub fn blocked(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

fn processes(pids: &[i32]) -> String {
    match pids {
        [] => "another process".to_owned(),
        [pid] => format!("process {pid}"),
        _ => {
            let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
            format!("processes {}", pids.join(", "))
        }
    }
}

/// Result of the cache's operations.
pub type Result<T, E = CacheError> = std::result::Result<T, E>;

/// Says of a failed system call what it was meant to do.
pub(crate) trait At<T> {
    /// Adds what was tried and on what.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| CacheError::Io { action, path: path.to_path_buf(), source })
    }
}
