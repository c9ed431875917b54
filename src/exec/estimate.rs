//! How long stages take, from earlier runs.

use super::error::Result;
use super::past::label;
use super::runner::Run;

/// How long stages take, and what depends on them.
#[derive(Debug)]
pub struct Estimates {
    /// Seconds from each stage's start to the end of all that depends on it, by position.
    priorities: Vec<f64>,
}

/// Seconds of a stage that never ran.
const UNKNOWN: f64 = 1.0;

impl Estimates {
    /// Of the stages of a run that are not done.
    pub fn new(run: &Run) -> Result<Self> {
        let pipeline = run.plan.pipeline();
        let order: Vec<usize> = run.plan.order().collect();
        let mut priorities = vec![0.0; pipeline.stages.len()];
        for &index in order.iter().rev() {
            let cell = run.stage(index);
            let seconds = if run.done.borrow().contains_key(&cell.id) {
                0.0
            } else {
                let last = run.cache.last_record(&label(pipeline, cell))?;
                last.map_or(UNKNOWN, |record| record.seconds)
            };
            let after = run.plan.users(index).into_iter().map(|user| priorities[user]);
            priorities[index] = seconds + after.fold(0.0, f64::max);
        }
        Ok(Self { priorities })
    }

    /// Seconds from a stage's start to the end of all that depends on it.
    pub fn priority(&self, index: usize) -> f64 {
        self.priorities[index]
    }
}
