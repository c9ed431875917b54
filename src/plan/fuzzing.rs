//! Fuzz target: the loader of pipeline files, and the plan of what it understands.

use super::Plan;
use crate::config;

/// Graphs of more stages are not drawn: that takes most of the time and shows nothing new.
const DRAWN: usize = 32;

/// A pipeline file, as [`config::fuzzing::read`] takes it.
///
/// # Panics
///
/// Where the loader breaks its word, or a stage has no turn in the plan.
pub fn pipeline(bytes: &[u8]) {
    let Some(pipeline) = config::fuzzing::read(bytes) else { return };
    let plan = Plan::new(&pipeline);
    let mut order: Vec<usize> = plan.order().collect();
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..pipeline.stages.len()), "not all stages have their turn");
    if pipeline.stages.len() <= DRAWN {
        for drawing in [plan.text(), plan.dot(), plan.mermaid(), plan.svg()] {
            assert!(!drawing.is_empty());
        }
    }
}
