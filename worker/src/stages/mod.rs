//! The run of each stage kind, one file each, and the table of them.

mod context;

pub use context::{Context, Events};

use qpipe::stages::contract::Metrics;

use crate::Result;

/// One line of the table of runs.
pub struct Run {
    /// The kind's name, as in its contract.
    pub kind: &'static str,
    /// Does the work: reads the task's inputs, writes its outputs, returns its figures.
    pub run: fn(&Context) -> Result<Metrics>,
}

/// All kinds that the worker runs.
pub const RUNS: &[Run] = &[];
