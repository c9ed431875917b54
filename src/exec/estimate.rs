//! Which stage is urgent, by how long what depends on it took in earlier runs.

use super::durations::durations;
use super::error::Result;
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
        let order: Vec<usize> = run.plan.order().collect();
        let mut priorities = vec![0.0; run.plan.pipeline().stages.len()];
        let done = run.done.borrow();
        let open = |index: &usize| !done.contains_key(&run.stage(*index).id);
        let known = durations(run.plan, run.cache, order.iter().copied().filter(open))?;
        for &index in order.iter().rev() {
            let seconds = match open(&index) {
                true => known.get(&index).copied().unwrap_or(UNKNOWN),
                false => 0.0,
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
