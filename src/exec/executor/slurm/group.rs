//! Which stages are one array job, and what each job waits for: pure functions over the plan.

use std::collections::{BTreeMap, BTreeSet};

use super::job::JobId;
use crate::plan::Plan;

/// A job to be submitted: one stage, or cells of a matrix stage as an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The stage's name, without a cell.
    pub name: String,
    /// Options of `sbatch` that its stages have in common.
    pub options: Vec<String>,
    /// Its stages: positions in the plan by the number of the element.
    pub tasks: BTreeMap<u32, usize>,
    /// What it waits for.
    pub after: Vec<After>,
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    /// The success of all of an earlier group, by its position.
    Whole(usize),
    /// Each element waits for the element of that group that has its own number.
    Corresponding(usize),
    /// The success of some elements of a group.
    Tasks(usize, Vec<u32>),
    /// The success of a job that was submitted by an earlier run.
    Job(JobId),
}

/// `MaxArraySize` is 1001 where nobody changed it: the largest number of an element is 1000.
const ARRAY: usize = 1000;

/// The jobs of the `pending` stages, each after those that it waits for.
///
/// `attached`: stages that have a job already. `options`: what a stage asks of `sbatch`.
pub fn groups(
    plan: &Plan,
    pending: &BTreeSet<usize>,
    attached: &BTreeMap<usize, JobId>,
    options: impl Fn(usize) -> Vec<String>,
) -> Vec<Group> {
    let numbers = numbers(plan);
    let mut groups: Vec<Group> = Vec::new();
    // Where each stage was put: its group.
    let mut placed: BTreeMap<usize, usize> = BTreeMap::new();
    // Cells of one level cannot need each other, so no two groups wait for each other.
    for level in levels(plan, pending) {
        let mut open: BTreeMap<Key, usize> = BTreeMap::new();
        for index in level {
            let number = numbers[&index];
            let element = u32::try_from(number % ARRAY).unwrap_or_default();
            let after = after(plan, index, element, &groups, &placed, attached);
            let key = Key {
                name: plan.stage(index).name.clone(),
                chunk: number / ARRAY,
                options: options(index),
                after,
            };
            let group = *open.entry(key.clone()).or_insert_with(|| {
                let Key { name, options, after, .. } = key;
                groups.push(Group { name, options, tasks: BTreeMap::new(), after });
                groups.len() - 1
            });
            groups[group].tasks.insert(element, index);
            placed.insert(index, group);
        }
    }
    settle(&mut groups);
    groups
}

/// What the cells of one array have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: String,
    chunk: usize,
    options: Vec<String>,
    after: Vec<After>,
}

/// The place of each cell among the cells of its stage.
fn numbers(plan: &Plan) -> BTreeMap<usize, usize> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let cells = plan.pipeline().stages.iter().enumerate();
    cells
        .map(|(index, cell)| {
            let next = count.entry(&cell.name).or_default();
            *next += 1;
            (index, *next - 1)
        })
        .collect()
}

/// Pending stages by the longest chain of pending stages before them, in the plan's order.
fn levels(plan: &Plan, pending: &BTreeSet<usize>) -> Vec<Vec<usize>> {
    let mut level: BTreeMap<usize, usize> = BTreeMap::new();
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for index in plan.order().filter(|index| pending.contains(index)) {
        let before = plan.producers(index).into_iter().filter_map(|producer| level.get(&producer));
        let own = before.max().map_or(0, |before| before + 1);
        level.insert(index, own);
        levels.resize_with(levels.len().max(own + 1), Vec::new);
        levels[own].push(index);
    }
    levels
}

/// What a stage waits for; an array that it needs whole, or only the element of its own number, is told
/// as such, so that cells which are alike have equal dependencies.
fn after(
    plan: &Plan,
    index: usize,
    element: u32,
    groups: &[Group],
    placed: &BTreeMap<usize, usize>,
    attached: &BTreeMap<usize, JobId>,
) -> Vec<After> {
    let mut after = Vec::new();
    let mut needed: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for producer in plan.producers(index) {
        if let Some(&group) = placed.get(&producer) {
            let tasks = groups[group].tasks.iter();
            let task = tasks.filter(|(_, stage)| **stage == producer).map(|(task, _)| *task);
            needed.entry(group).or_default().extend(task);
        } else if let Some(job) = attached.get(&producer) {
            after.push(After::Job(*job));
        }
    }
    for (group, tasks) in needed {
        after.push(if tasks.len() == groups[group].tasks.len() {
            After::Whole(group)
        } else if tasks.iter().eq([&element]) {
            After::Corresponding(group)
        } else {
            After::Tasks(group, tasks.into_iter().collect())
        });
    }
    after.sort();
    after
}

/// A job of one stage is no array: it has no number that another's could correspond to.
fn settle(groups: &mut [Group]) {
    for group in groups {
        if let (1, Some((&task, _))) = (group.tasks.len(), group.tasks.first_key_value()) {
            for after in &mut group.after {
                if let After::Corresponding(other) = *after {
                    *after = After::Tasks(other, vec![task]);
                }
            }
        }
    }
}

impl Group {
    /// Whether it is submitted as an array.
    pub fn is_array(&self) -> bool {
        self.tasks.len() > 1
    }

    /// The job of an element, once the group has a number.
    pub fn job(&self, job: u64, task: u32) -> JobId {
        JobId { job, task: self.is_array().then_some(task) }
    }

    /// Value of `--array`, with at most `limit` elements at a time.
    pub fn array(&self, limit: Option<usize>) -> Option<String> {
        if !self.is_array() {
            return None;
        }
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &task in self.tasks.keys() {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == task => *end = task,
                _ => ranges.push((task, task)),
            }
        }
        let ranges: Vec<String> = ranges
            .into_iter()
            .map(
                |(start, end)| {
                    if start == end { start.to_string() } else { format!("{start}-{end}") }
                },
            )
            .collect();
        let limit = limit.map(|limit| format!("%{limit}")).unwrap_or_default();
        Some(format!("{}{limit}", ranges.join(",")))
    }

    /// Value of `--dependency`; `numbers`: those of the earlier groups.
    pub fn dependency(&self, numbers: &[u64]) -> Option<String> {
        let mut parts = Vec::new();
        for after in &self.after {
            parts.push(match after {
                After::Whole(group) => format!("afterok:{}", numbers[*group]),
                After::Corresponding(group) => format!("aftercorr:{}", numbers[*group]),
                After::Tasks(group, tasks) => {
                    let job = numbers[*group];
                    let tasks: Vec<String> =
                        tasks.iter().map(|task| format!("{job}_{task}")).collect();
                    format!("afterok:{}", tasks.join(":"))
                }
                After::Job(job) => format!("afterok:{job}"),
            });
        }
        (!parts.is_empty()).then(|| parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::test_pipeline;

    /// `NAME NUMBERS after DEPENDENCY` of each job, where group N has the number 100 + N.
    fn jobs(lines: &[&str], done: &[usize], attached: &[(usize, u64)]) -> Vec<String> {
        let pipeline = test_pipeline(lines);
        let plan = Plan::new(&pipeline);
        let attached: BTreeMap<usize, JobId> =
            attached.iter().map(|&(index, job)| (index, JobId { job, task: None })).collect();
        let pending =
            plan.order().filter(|index| !done.contains(index) && !attached.contains_key(index));
        let options = |index: usize| match plan.stage(index).id.contains("big") {
            true => vec!["--mem=9M".to_owned()],
            false => Vec::new(),
        };
        let groups = groups(&plan, &pending.collect(), &attached, options);
        let numbers: Vec<u64> = (100..).take(groups.len()).collect();
        let text = |group: &Group| {
            let array = group.array(None).map(|array| format!(" {array}")).unwrap_or_default();
            let after =
                group.dependency(&numbers).map(|after| format!(" {after}")).unwrap_or_default();
            format!("{}{array}{after}", group.name)
        };
        groups.iter().map(text).collect()
    }

    #[test]
    fn cells_with_the_same_needs_are_one_array() {
        let lines = ["a", "m[x] < a", "m[y] < a", "m[z] < a", "end < m[x] m[y] m[z]"];
        assert_eq!(jobs(&lines, &[], &[]), ["a", "m 0-2 afterok:100", "end afterok:101"]);
        assert_eq!(jobs(&lines, &[0], &[]), ["m 0-2", "end afterok:100"]);
        assert_eq!(jobs(&lines, &[0, 2], &[]), ["m 0,2", "end afterok:100"]);
        assert_eq!(jobs(&lines, &[0, 1, 2, 3, 4], &[]), [""; 0]);
    }

    #[test]
    fn cells_that_need_their_like_correspond() {
        let lines = ["m[x]", "m[y]", "n[x] < m[x]", "n[y] < m[y]", "end < n[y]"];
        assert_eq!(jobs(&lines, &[], &[]), ["m 0-1", "n 0-1 aftercorr:100", "end afterok:101_1"]);
        // One that is up to date: its user waits for nothing, the other for a job that is no array.
        assert_eq!(jobs(&lines, &[0], &[]), ["m", "n", "n afterok:100", "end afterok:102"]);
    }

    #[test]
    fn cells_with_other_needs_or_resources_are_jobs_of_their_own() {
        let lines = ["a", "b", "m[x] < a", "m[y] < b", "m[z] < b", "n[1]", "n[big]"];
        assert_eq!(
            jobs(&lines, &[], &[]),
            ["a", "b", "n", "n", "m afterok:100", "m 1-2 afterok:101"]
        );
        // Crossed: the element of the other's number.
        let lines = ["m[x]", "m[y]", "n[x] < m[y]", "n[y] < m[x]"];
        assert_eq!(jobs(&lines, &[], &[]), ["m 0-1", "n afterok:100_1", "n afterok:100_0"]);
    }

    #[test]
    fn cells_of_one_stage_that_need_each_other_are_not_one_array() {
        let lines = ["m[x]", "m[y] < m[x]", "m[z] < m[x]"];
        assert_eq!(jobs(&lines, &[], &[]), ["m", "m 1-2 afterok:100"]);
    }

    #[test]
    fn jobs_of_an_earlier_run_are_waited_for() {
        let lines = ["a", "m[x] < a", "m[y] < a", "end < m[x] a"];
        assert_eq!(
            jobs(&lines, &[], &[(0, 7)]),
            ["m 0-1 afterok:7", "end afterok:100_0,afterok:7"]
        );
    }

    #[test]
    fn numbers_stay_below_the_largest_that_slurm_takes() {
        let lines: Vec<String> = (0..1500).map(|cell| format!("m[{cell}]")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(jobs(&lines, &[], &[]), ["m 0-999", "m 0-499"]);
        let pipeline = test_pipeline(&lines[..9]);
        let plan = Plan::new(&pipeline);
        let pending = [0, 1, 2, 5, 8].into_iter().collect();
        let groups = groups(&plan, &pending, &BTreeMap::new(), |_| Vec::new());
        assert_eq!(groups[0].array(Some(2)).as_deref(), Some("0-2,5,8%2"));
    }
}
