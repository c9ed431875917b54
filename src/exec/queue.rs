//! Stages that wait for a part of the machine: which one is next.

use super::resources::{Busy, Grant, Need, Pool};

/// A stage that waits.
#[derive(Debug)]
struct Waiting {
    stage: usize,
    /// Seconds from its start to the end of all that depends on it, as far as is known.
    priority: f64,
    need: Need,
    /// How often a stage behind it was let past because it fitted and this one did not.
    passed: usize,
    /// Whether it fitted but for stages of other runs, when it was tried last.
    elsewhere: bool,
}

/// Stages that wait for a part of the machine.
///
/// The first is the one whose dependants take longest (the critical path). A stage that does not fit
/// lets smaller ones past, but only [`PATIENCE`] times: then nothing else starts until it fits. Each
/// stage takes all that it needs at once and holds nothing while it waits, so there is no deadlock.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Vec<Waiting>,
}

/// How often a stage that does not fit lets others past.
const PATIENCE: usize = 8;

impl Queue {
    /// Adds a stage.
    pub fn push(&mut self, stage: usize, priority: f64, need: Need) {
        let first = |other: &Waiting| {
            other.priority > priority || (other.priority == priority && other.stage < stage)
        };
        let place = self.waiting.partition_point(first);
        self.waiting.insert(place, Waiting { stage, priority, need, passed: 0, elsewhere: false });
    }

    /// Takes the next stage that fits, with what it was given.
    pub fn take(&mut self, pool: &mut Pool) -> Option<(usize, Grant)> {
        if pool.is_full() {
            return None;
        }
        for index in 0..self.waiting.len() {
            let taken = pool.take(&self.waiting[index].need);
            let waiting = &mut self.waiting[index];
            waiting.elsewhere = matches!(taken, Err(Busy::Elsewhere));
            // What others have does not come sooner by waiting for it.
            let urgent = waiting.passed >= PATIENCE && !waiting.elsewhere;
            if let Ok(grant) = taken {
                self.waiting[..index].iter_mut().for_each(|before| before.passed += 1);
                return Some((self.waiting.remove(index).stage, grant));
            }
            if urgent {
                return None;
            }
        }
        None
    }

    /// Removes stages that can no longer run.
    pub fn drop_stages(&mut self, lost: &[usize]) {
        self.waiting.retain(|waiting| !lost.contains(&waiting.stage));
    }

    /// Stages that wait for nothing but GPUs of other runs.
    pub fn elsewhere(&self) -> Vec<usize> {
        let waiting = self.waiting.iter().filter(|waiting| waiting.elsewhere);
        waiting.map(|waiting| waiting.stage).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::machine::Machine;
    use super::super::resources::Capacity;
    use super::*;

    fn pool() -> Pool {
        Pool::new(Capacity { jobs: 100, cpus: 2.0, memory: 0, gpus: Vec::new() })
    }

    fn need(cpus: f64) -> Need {
        Need { cpus, ..Need::LIGHT }
    }

    #[test]
    fn the_critical_path_comes_first_and_then_the_files_order() {
        let mut queue = Queue::default();
        for (stage, priority) in [(3, 1.0), (1, 1.0), (2, 5.0)] {
            queue.push(stage, priority, need(0.1));
        }
        let mut pool = pool();
        let order: Vec<usize> =
            std::iter::from_fn(|| queue.take(&mut pool)).map(|(stage, _)| stage).collect();
        assert_eq!(order, [2, 1, 3]);
    }

    #[test]
    fn a_large_stage_lets_small_ones_past_but_not_for_ever() {
        let (mut queue, mut pool) = (Queue::default(), pool());
        let mut held = Some(pool.take(&need(1.0)).unwrap());
        queue.push(0, 9.0, need(2.0));
        let mut small = 0;
        for stage in 1..100 {
            queue.push(stage, 1.0, need(1.0));
            let Some((taken, grant)) = queue.take(&mut pool) else { break };
            assert_eq!(taken, stage);
            small += 1;
            pool.give_back(&held.replace(grant).unwrap());
        }
        assert_eq!(small, PATIENCE);
        pool.give_back(&held.unwrap());
        assert_eq!(queue.take(&mut pool).unwrap().0, 0);
    }

    #[test]
    fn a_stage_that_waits_for_another_run_lets_all_past() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Machine::of_test(folder.path()), Machine::of_test(folder.path()));
        let held = theirs.cards(&["0".to_owned()]).unwrap().unwrap();
        let capacity = Capacity { gpus: vec!["0".to_owned()], ..pool().capacity().clone() };
        let mut pool = Pool::among_others(capacity, Rc::new(ours));
        let mut queue = Queue::default();
        queue.push(0, 9.0, Need { gpus: 1.0, ..need(1.0) });
        for stage in 1..3 * PATIENCE {
            queue.push(stage, 1.0, need(1.0));
            let (taken, grant) = queue.take(&mut pool).unwrap();
            assert_eq!((taken, queue.elsewhere()), (stage, vec![0]));
            pool.give_back(&grant);
        }
        drop(held);
        assert_eq!(queue.take(&mut pool).unwrap().0, 0);
        assert!(queue.elsewhere().is_empty());
    }
}
