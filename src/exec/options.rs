//! What a run may be asked for.

use std::sync::Arc;

use crate::cache::remote::Remote;
use crate::report::Better;

/// What a run may be asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stages that run even if they are up to date.
    pub force: Vec<String>,
    /// The lock file must not change.
    pub locked: bool,
    /// After a failure, go on with what does not need it.
    pub keep_going: bool,
    /// Stages at a time; as many as processors where it is not given.
    pub jobs: Option<usize>,
    /// Names of GPUs that may be used; those of the system where they are not given.
    pub gpus: Option<Vec<String>>,
    /// Figures of a sweep by name, and which of their values are better.
    pub best: Vec<(String, Better)>,
    /// A cache that is shared with other machines.
    pub remote: Option<Arc<Remote>>,
}
