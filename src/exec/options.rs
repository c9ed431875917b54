//! What a run may be asked for.

/// What a run may be asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stages that run even if they are up to date.
    pub force: Vec<String>,
    /// The lock file must not change.
    pub locked: bool,
    /// After a failure, go on with what does not need it.
    pub keep_going: bool,
}
