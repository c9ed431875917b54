//! Who runs stages that are not up to date: this machine, or a cluster.

mod local;
pub mod slurm;

use super::error::Result;
use super::runner::{Needed, Run};
use super::scheduler::Scheduler;

pub use local::Local;

/// What is left of a run once all that is up to date has been found.
#[derive(Debug)]
pub struct Work {
    /// How far the stages of the plan are.
    pub scheduler: Scheduler,
    /// Stages whose producers are all up to date, and that are not.
    pub needed: Vec<Needed>,
}

/// Brings stages up to date.
///
/// An implementation tells of all that happens through [`Run::tell`], takes stages from the cache or
/// runs them so that their records are in it ([`Run::cached`]), and looks at [`Run::look`] for each
/// stage whose producers have become up to date. It leaves what a failed stage loses
/// to [`Run::lost`]. The signals that ask a run to end are its own to handle.
pub trait Executor {
    /// Runs what is left.
    ///
    /// # Errors
    ///
    /// What ends the run as a whole; a stage that failed is in the run's summary.
    fn execute(&self, run: &Run, work: Work) -> Result<()>;
}
