//! Which stages may run now: those whose producers are done.

use std::collections::BTreeSet;

use crate::plan::Plan;

/// The stages of a plan and how far they are.
///
/// It hands out any number of stages at a time; the runner takes one.
#[derive(Debug)]
pub struct Scheduler {
    /// Producers that are not done, of each stage that waits; 0 for all others.
    missing: Vec<usize>,
    /// How many stages wait.
    waiting: usize,
    /// Users of each stage, among the selected.
    users: Vec<Vec<usize>>,
    /// Place of each stage in the plan's order.
    place: Vec<usize>,
    /// Stages that may run, by place.
    ready: BTreeSet<(usize, usize)>,
}

impl Scheduler {
    /// All selected stages of the plan, none done.
    pub fn new(plan: &Plan) -> Self {
        let count = plan.pipeline().stages.len();
        let mut scheduler = Self {
            missing: vec![0; count],
            waiting: 0,
            users: vec![Vec::new(); count],
            place: vec![usize::MAX; count],
            ready: BTreeSet::new(),
        };
        for (place, stage) in plan.order().enumerate() {
            scheduler.place[stage] = place;
        }
        for stage in plan.order() {
            let producers = plan.producers(stage);
            scheduler.missing[stage] = producers.len();
            scheduler.waiting += usize::from(!producers.is_empty());
            if producers.is_empty() {
                scheduler.ready.insert((scheduler.place[stage], stage));
            }
            for producer in producers {
                scheduler.users[producer].push(stage);
            }
        }
        scheduler
    }

    /// Takes the next stage that may run, in the plan's order.
    pub fn take(&mut self) -> Option<usize> {
        self.ready.pop_first().map(|(_, stage)| stage)
    }

    /// Takes note that a stage succeeded: its users may be ready now.
    pub fn succeeded(&mut self, stage: usize) {
        for &user in &self.users[stage] {
            if self.missing[user] == 0 {
                continue;
            }
            self.missing[user] -= 1;
            if self.missing[user] == 0 {
                self.waiting -= 1;
                self.ready.insert((self.place[user], user));
            }
        }
    }

    /// Takes note that a stage failed, and returns all that can no longer run, in the plan's order.
    pub fn failed(&mut self, stage: usize) -> Vec<usize> {
        let mut lost = BTreeSet::new();
        let mut open = vec![stage];
        while let Some(stage) = open.pop() {
            for &user in &self.users[stage] {
                if std::mem::take(&mut self.missing[user]) > 0 {
                    self.waiting -= 1;
                    lost.insert((self.place[user], user));
                    open.push(user);
                }
            }
        }
        lost.into_iter().map(|(_, stage)| stage).collect()
    }

    /// Stages that were neither taken nor lost.
    pub fn left(&self) -> usize {
        self.ready.len() + self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::test_pipeline;

    #[test]
    fn a_stage_is_ready_when_its_last_producer_is_done() {
        let pipeline = test_pipeline(&["a", "b", "c < a b", "d < c", "e < b"]);
        let plan = Plan::new(&pipeline);
        let mut scheduler = Scheduler::new(&plan);
        assert_eq!(
            (scheduler.take(), scheduler.take(), scheduler.take()),
            (Some(0), Some(1), None)
        );
        scheduler.succeeded(1);
        assert_eq!((scheduler.take(), scheduler.take()), (Some(4), None));
        scheduler.succeeded(0);
        assert_eq!((scheduler.take(), scheduler.left()), (Some(2), 1));
    }

    #[test]
    fn a_failure_takes_all_that_need_it_and_no_other() {
        let pipeline = test_pipeline(&["a", "b", "c < a b", "d < c", "e < b"]);
        let plan = Plan::new(&pipeline);
        let mut scheduler = Scheduler::new(&plan);
        assert_eq!(scheduler.take(), Some(0));
        assert_eq!(scheduler.failed(0), [2, 3]);
        assert_eq!(scheduler.take(), Some(1));
        scheduler.succeeded(1);
        assert_eq!((scheduler.take(), scheduler.take(), scheduler.left()), (Some(4), None, 0));
    }
}
