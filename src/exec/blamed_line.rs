//! The line of the pipeline file that a stage's failure or warning is about.

use crate::config::{Pipeline, StageCell};
use crate::task::Failure;

/// Puts file and line in front of a failure that names a key of the stage's table.
pub fn with_line(pipeline: &Pipeline, cell: &StageCell, failure: Failure) -> Failure {
    let Some(key) = &failure.key else { return failure };
    let message = format!("{}: {}", pipeline.place_of(cell, key), failure.message);
    Failure { message, ..failure }
}
