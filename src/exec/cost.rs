//! How long a run takes: a simulation of its queue with what is known of its stages.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use super::Options;
use super::durations::durations;
use super::gpus::Gpus;
use super::need::need;
use super::preview::{Action, Preview};
use super::queue::Queue;
use super::resources::{Capacity, Need, Pool};
use super::runner::Run;
use crate::plan::Plan;

/// How long stages take, by what they took before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// How many there are.
    pub stages: usize,
    /// Those of which nothing is known; they count as nothing.
    pub unknown: usize,
    /// The sum of their times, seconds.
    pub work: f64,
    /// Wall time on this machine, as many at a time as fit, seconds.
    pub wall: f64,
}

/// What a run would cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Costs {
    /// The stages that would run.
    pub run: Cost,
    /// Those and the stages that may run.
    pub all: Cost,
    /// Processors of this machine, or stages at a time if those are fewer.
    pub parallel: usize,
}

/// What a run would cost that does what `previews` says.
pub fn costs(plan: &Plan, previews: &[Preview], options: &Options) -> Costs {
    let capacity = Capacity::of_machine(options.jobs, &Gpus::of(options, plan));
    let parallel = capacity.jobs.min(capacity.cpus as usize);
    let cost = |wanted: &dyn Fn(Action) -> bool| {
        let previews: BTreeMap<&str, &Preview> =
            previews.iter().map(|preview| (preview.stage.as_str(), preview)).collect();
        let mut cost = Cost::default();
        let mut seconds = BTreeMap::new();
        for index in plan.order() {
            let preview = previews.get(plan.stage(index).id.as_str());
            let Some(preview) = preview.filter(|preview| wanted(preview.action)) else { continue };
            cost.stages += 1;
            cost.unknown += usize::from(preview.estimate.is_none());
            cost.work += preview.estimate.unwrap_or_default();
            seconds.insert(index, preview.estimate.unwrap_or_default());
        }
        cost.wall = wall(plan, &seconds, &capacity);
        cost
    };
    let run = cost(&|action| action == Action::Run);
    Costs { run, all: cost(&|action| action != Action::Cached), parallel }
}

/// Seconds until a run is over, by what its stages took before; `None` where nothing is known of the
/// stages that are left. It is an upper bound: stages that wait may turn out to be up to date.
///
/// It simulates the queue, which takes about a microsecond a stage: ask once a second, not for
/// each event.
pub fn estimate_left(run: &Run) -> Option<f64> {
    let mut seconds = BTreeMap::new();
    let known = run.durations()?;
    let mut any = false;
    {
        let (notes, lost, begun) = (run.notes.borrow(), run.lost.borrow(), run.begun.borrow());
        for index in run.plan.order() {
            if notes.contains_key(&index) || lost.contains_key(&index) {
                continue;
            }
            let whole = known.get(&index).copied();
            any |= whole.is_some();
            let since = begun.get(&index).map_or(0.0, |begun| begun.elapsed().as_secs_f64());
            seconds.insert(index, (whole.unwrap_or_default() - since).max(0.0));
        }
    }
    let capacity = Capacity::of_machine(run.options.jobs, &run.gpus);
    any.then(|| wall(run.plan, &seconds, &capacity))
}

impl Run<'_> {
    /// What the stages of this run took before; read once.
    fn durations(&self) -> Option<&BTreeMap<usize, f64>> {
        let read = || durations(self.plan, self.cache, self.plan.order()).ok();
        self.durations.get_or_init(read).as_ref()
    }
}

/// Nanoseconds: the clock of the simulation.
const SECOND: f64 = 1e9;

/// Wall time of stages with known times, each after those that it needs, seconds.
fn wall(plan: &Plan, seconds: &BTreeMap<usize, f64>, capacity: &Capacity) -> f64 {
    let (mut missing, mut users) = (BTreeMap::new(), BTreeMap::<usize, Vec<usize>>::new());
    for &index in seconds.keys() {
        let producers = plan.producers(index);
        let open = producers.iter().filter(|producer| seconds.contains_key(producer));
        missing.insert(index, open.clone().count());
        open.for_each(|producer| users.entry(*producer).or_default().push(index));
    }
    let order: Vec<usize> = plan.order().filter(|index| seconds.contains_key(index)).collect();
    let mut priorities: BTreeMap<usize, f64> = BTreeMap::new();
    for &index in order.iter().rev() {
        let after = users.get(&index).into_iter().flatten().map(|user| priorities[user]);
        priorities.insert(index, seconds[&index] + after.fold(0.0, f64::max));
    }
    let mut pool = Pool::new(capacity.clone());
    let mut queue = Queue::default();
    let push = |index: usize, queue: &mut Queue| {
        let wanted = need(plan.stage(index), capacity);
        // One that never fits is refused by a run; here it takes all that there is.
        let most = |gpus: f64| gpus.min(capacity.gpus.len() as f64);
        let (cpus, memory) = (wanted.cpus.min(capacity.cpus), wanted.memory.min(capacity.memory));
        let need = Need { cpus, memory, gpus: most(wanted.gpus), alone: wanted.alone };
        queue.push(index, priorities[&index], need);
    };
    let ready = order.iter().filter(|index| missing[index] == 0);
    ready.for_each(|index| push(*index, &mut queue));
    let (mut now, mut running) = (0_u64, BinaryHeap::new());
    let mut grants = BTreeMap::new();
    loop {
        while let Some((index, grant)) = queue.take(&mut pool) {
            // A record of others' may tell of any time.
            let end = now.saturating_add((seconds[&index] * SECOND) as u64);
            running.push(Reverse((end, index)));
            grants.insert(index, grant);
        }
        let Some(Reverse((end, index))) = running.pop() else { break };
        now = end;
        grants.remove(&index).iter().for_each(|grant| pool.give_back(grant));
        for user in users.get(&index).into_iter().flatten() {
            if let Some(open) = missing.get_mut(user) {
                *open -= 1;
                if *open == 0 {
                    push(*user, &mut queue);
                }
            }
        }
    }
    now as f64 / SECOND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::test_pipeline;

    fn capacity(jobs: usize) -> Capacity {
        Capacity { jobs, cpus: 8.0, memory: 0, gpus: Vec::new() }
    }

    #[test]
    fn wall_time_is_the_sum_alone_and_the_longest_path_at_most() {
        let pipeline = test_pipeline(&["a", "b", "c < a b", "d < c", "e < b"]);
        let plan = Plan::new(&pipeline);
        let seconds: BTreeMap<usize, f64> =
            [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)].into();
        assert_eq!(wall(&plan, &seconds, &capacity(1)), 15.0);
        assert_eq!(wall(&plan, &seconds, &capacity(8)), 9.0);
        // What is up to date costs nothing and keeps nobody waiting.
        let some: BTreeMap<usize, f64> = [(2, 3.0), (4, 5.0)].into();
        assert_eq!(wall(&plan, &some, &capacity(8)), 5.0);
        assert_eq!(wall(&plan, &BTreeMap::new(), &capacity(8)), 0.0);
        let endless: BTreeMap<usize, f64> = [(1, 1.0), (4, 1e300), (2, -1.0)].into();
        assert!(wall(&plan, &endless, &capacity(8)) > 1e10);
    }

    #[test]
    fn stages_that_may_run_are_counted_apart() {
        let pipeline = test_pipeline(&["a", "b < a", "c"]);
        let plan = Plan::new(&pipeline);
        let preview = |stage: &str, action, estimate| Preview {
            estimate,
            ..Preview::new(stage.to_owned(), action, None)
        };
        let previews = [
            preview("a", Action::Run, Some(1.5)),
            preview("b", Action::Maybe, None),
            preview("c", Action::Cached, None),
        ];
        let options = Options { jobs: Some(1), ..Options::default() };
        let costs = costs(&plan, &previews, &options);
        assert_eq!(costs.run, Cost { stages: 1, unknown: 0, work: 1.5, wall: 1.5 });
        assert_eq!(costs.all, Cost { stages: 2, unknown: 1, work: 1.5, wall: 1.5 });
        assert_eq!(costs.parallel, 1);
    }
}
