//! What a run may be asked for.

use std::path::PathBuf;
use std::sync::Arc;

use super::executor::slurm::SlurmOptions;
use super::review::Review;
use crate::cache::Digest;
use crate::cache::remote::Remote;
use crate::report::Better;

/// What a run may be asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stages that run even if they are up to date.
    pub force: Vec<String>,
    /// Whether the lock file may change.
    pub locked: Locked,
    /// After a failure, go on with what does not need it.
    pub keep_going: bool,
    /// Stages at a time; as many as processors where it is not given.
    pub jobs: Option<usize>,
    /// Names of GPUs that may be used; those of the system where they are not given.
    pub gpus: Option<Vec<String>>,
    /// Figures of a sweep by name, and which of their values are better.
    pub best: Vec<(String, Better)>,
    /// Who runs what is not up to date.
    pub executor: ExecutorChoice,
    /// The lock file is neither read nor written.
    pub no_lock: bool,
    /// The run is a job of a cluster.
    pub part: Option<Part>,
    /// A cache that is shared with other machines.
    pub remote: Option<Arc<Remote>>,
    /// What the figures are compared with, and whether guards are held to.
    pub review: Option<Review>,
}

/// Who runs what is not up to date.
#[derive(Clone, Debug, Default)]
pub enum ExecutorChoice {
    /// This machine.
    #[default]
    Local,
    /// A Slurm cluster.
    Slurm(SlurmOptions),
}

/// A job's part of a run: one stage, whose producers have handed over what they came to.
#[derive(Clone, Debug)]
pub struct Part {
    /// The stage's id.
    pub stage: String,
    /// Folder of what stages came to.
    pub hand_over: PathBuf,
    /// Digest of the stage's definition that the job was submitted for.
    pub definition: Digest,
    /// Whether it runs even if it is up to date.
    pub forced: bool,
}

/// Whether the lock file may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locked {
    /// It may.
    #[default]
    No,
    /// It must not. Stages whose keys differ from it only by the machine run all the same.
    Portable,
    /// It must not, and every stage has the key that stands there.
    Strict,
}
