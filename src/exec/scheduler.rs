//! Which stages may run now: those whose producers are done.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Plan;

/// The stages of a plan and how far they are.
///
/// It hands out any number of stages at a time; the runner takes one.
#[derive(Debug)]
pub struct Scheduler {
    /// Producers that are not done, of each stage that waits.
    missing: BTreeMap<usize, usize>,
    /// Users of each stage, among the selected.
    users: BTreeMap<usize, Vec<usize>>,
    /// Place of each stage in the plan's order.
    place: BTreeMap<usize, usize>,
    /// Stages that may run, by place.
    ready: BTreeSet<(usize, usize)>,
}

impl Scheduler {
    /// All selected stages of the plan, none done.
    pub fn new(plan: &Plan) -> Self {
        let place: BTreeMap<usize, usize> =
            plan.order().enumerate().map(|(place, stage)| (stage, place)).collect();
        let mut scheduler = Self {
            missing: BTreeMap::new(),
            users: BTreeMap::new(),
            place,
            ready: BTreeSet::new(),
        };
        for stage in plan.order() {
            let producers = plan.producers(stage).len();
            if producers == 0 {
                scheduler.ready.insert((scheduler.place[&stage], stage));
            } else {
                scheduler.missing.insert(stage, producers);
            }
            let mut users = plan.users(stage);
            users.retain(|user| scheduler.place.contains_key(user));
            scheduler.users.insert(stage, users);
        }
        scheduler
    }

    /// Takes the next stage that may run, in the plan's order.
    pub fn take(&mut self) -> Option<usize> {
        self.ready.pop_first().map(|(_, stage)| stage)
    }

    /// Takes note that a stage succeeded: its users may be ready now.
    pub fn succeeded(&mut self, stage: usize) {
        for user in self.users.get(&stage).into_iter().flatten() {
            let Some(missing) = self.missing.get_mut(user) else { continue };
            *missing -= 1;
            if *missing == 0 {
                self.missing.remove(user);
                self.ready.insert((self.place[user], *user));
            }
        }
    }

    /// Takes note that a stage failed, and returns all that can no longer run, in the plan's order.
    pub fn failed(&mut self, stage: usize) -> Vec<usize> {
        let mut lost = BTreeSet::new();
        let mut open = vec![stage];
        while let Some(stage) = open.pop() {
            for user in self.users.get(&stage).into_iter().flatten() {
                if self.missing.remove(user).is_some() {
                    lost.insert((self.place[user], *user));
                    open.push(*user);
                }
            }
        }
        lost.into_iter().map(|(_, stage)| stage).collect()
    }

    /// Stages that were neither taken nor lost.
    pub fn left(&self) -> usize {
        self.ready.len() + self.missing.len()
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
