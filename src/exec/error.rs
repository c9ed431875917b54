//! What ends a run as a whole, other than a stage that failed.

use std::path::{Path, PathBuf};

use super::lacks::Lack;
use super::worker::WorkerError;
use crate::cache::CacheError;
use crate::plan::UnknownTarget;

/// What ends a run as a whole, other than a stage that failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RunError {
    /// The cache or an input.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// The worker.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Worker(#[from] WorkerError),
    /// The cluster.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Slurm(#[from] super::executor::slurm::SlurmError),
    /// A job reads another definition of its stage than it was submitted for.
    #[error("{} changed after the job of {stage} was submitted", file.display())]
    #[diagnostic(code(qpipe::run::definition), help("run again: the job is submitted anew"))]
    Definition {
        /// The pipeline file.
        file: PathBuf,
        /// The stage.
        stage: String,
    },
    /// A job does not find what its producers came to.
    #[error("{stage} needs {producer}, whose result is not in the cache {}", cache.display())]
    #[diagnostic(
        code(qpipe::run::hand_over),
        help("run again; if this comes again, the nodes do not share the cache")
    )]
    HandOver {
        /// The stage.
        stage: String,
        /// What it needs.
        producer: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A stage that was named.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Target(#[from] UnknownTarget),
    /// Stages need what is not there.
    #[error("{}", lines(lacks))]
    #[diagnostic(code(qpipe::run::lacking))]
    Lacking {
        /// What is missing, and who needs it.
        lacks: Vec<Lack>,
        /// What to do about it.
        #[help]
        help: String,
    },
    /// The user's files changed while a stage read them.
    #[error("{} changed while {stage} ran: its result is not kept", list(paths))]
    #[diagnostic(
        code(qpipe::run::input_changed),
        help("run again when nothing writes to it any more")
    )]
    InputChanged {
        /// The stage.
        stage: String,
        /// The files or folders.
        paths: Vec<PathBuf>,
    },
    /// The lock file would change, and must not.
    #[error("{} would change, and --locked forbids it: {what}", path.display())]
    #[diagnostic(
        code(qpipe::run::locked),
        help("run without --locked and commit the lock file, or undo the change")
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The stage and the reason.
        what: String,
    },
    /// What was accepted last cannot be had from git.
    #[error("cannot ask git for {what}: {reason}")]
    #[diagnostic(
        code(qpipe::run::git),
        help("name the lock file that was accepted: --against FILE")
    )]
    Git {
        /// What was asked for.
        what: String,
        /// What git or the system said.
        reason: String,
    },
    /// What `--against` names is neither a file nor a revision.
    #[error("--against {name}: there is no such file, and git knows no such commit")]
    #[diagnostic(
        code(qpipe::run::against),
        help("name a lock file, or a revision such as origin/main that was fetched")
    )]
    Against {
        /// What was named.
        name: String,
    },
    /// A stage needs more than the machine has.
    #[error(
        "stage {stage} ({}:{line}) needs {needed} {what}; this machine has {there}",
        file.display()
    )]
    #[diagnostic(
        code(qpipe::run::too_large),
        help("lower its `resources`, or run it on a larger machine")
    )]
    TooLarge {
        /// The pipeline file.
        file: PathBuf,
        /// Line of the stage's table.
        line: usize,
        /// The stage.
        stage: String,
        /// Of what.
        what: &'static str,
        /// How much it needs.
        needed: String,
        /// How much there is.
        there: String,
    },
    /// The run was told to use a GPU that the machine does not have.
    #[error("--gpus {name}: there is no such GPU; this machine has {there}")]
    #[diagnostic(
        code(qpipe::run::no_such_gpu),
        help("name GPUs by their numbers in nvidia-smi or by their ids (nvidia-smi -L)")
    )]
    NoSuchGpu {
        /// What was named.
        name: String,
        /// The machine's GPUs.
        there: String,
    },
    /// A stage needs the machine alone, and its run is a part of a stage that shares it.
    #[error(
        "stage {stage} ({}:{line}) needs the machine alone, but this run is inside stage {outer} of run {run}, which shares it",
        file.display()
    )]
    #[diagnostic(
        code(qpipe::run::inside),
        help("give stage {outer} `exclusive = true`: what runs inside it takes part in its turn")
    )]
    Inside {
        /// The pipeline file.
        file: PathBuf,
        /// Line of the stage's table.
        line: usize,
        /// The stage.
        stage: String,
        /// The stage that started this run.
        outer: String,
        /// That stage's run.
        run: String,
    },
    /// The folder with the machine's lock files is not this user's alone.
    #[error("{}, where runs on this machine wait for each other, {what}", path.display())]
    #[diagnostic(code(qpipe::run::lock_folder))]
    LockFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        #[help]
        help: String,
    },
    /// Nothing runs any more, nothing failed, and stages are left.
    #[error("{left} of {stages} stages were not run, though nothing failed: {}", names.join(", "))]
    #[diagnostic(
        code(qpipe::run::left),
        help("this is a bug in qpipe: report it with the pipeline file and `qpipe doctor --json`")
    )]
    Left {
        /// How many were not run.
        left: usize,
        /// Which.
        names: Vec<String>,
        /// How many the run has.
        stages: usize,
    },
    /// A sweep has no lock file to be held to.
    #[error("--locked is for a pipeline, and --set with several values makes a sweep")]
    #[diagnostic(code(qpipe::run::locked_sweep), help("run each point alone, or without --locked"))]
    LockedSweep,
    /// Guards hold the figures of one pipeline to its lock file.
    #[error(
        "`qpipe ci` holds one pipeline to its guards, and --set with several values makes a sweep of {points}"
    )]
    #[diagnostic(
        code(qpipe::run::guarded_sweep),
        help("hold each point alone, or `qpipe run` the sweep")
    )]
    GuardedSweep {
        /// How many points it has.
        points: usize,
    },
    /// The system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    #[diagnostic(code(qpipe::run::io), help("check permissions, and the room left on the disk"))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A signal asked the run to end.
    #[error("interrupted")]
    Interrupted,
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

fn lines(lacks: &[Lack]) -> String {
    let lines: Vec<String> = lacks.iter().map(Lack::to_string).collect();
    lines.join("\n")
}

/// Result of a run's steps.
pub(super) type Result<T, E = RunError> = std::result::Result<T, E>;

/// Says of a failed system call what it was meant to do.
pub(super) trait At<T> {
    /// Adds what was tried and on what.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| RunError::Io { action, path: path.to_path_buf(), source })
    }
}
