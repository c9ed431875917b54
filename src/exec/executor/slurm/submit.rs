//! Submitting what is missing, and taking over what an earlier run submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use jiff::Timestamp;

use super::client::Slurm;
use super::definition::{self, definitions};
use super::error::Result;
use super::folder::Folder;
use super::group::{Group, groups};
use super::job::{JobId, Seen};
use super::keys::HandOver;
use super::script::{self, Ask, JobOptions, Task};
use super::state::{Live, Submission, Submitted, SubmittedTask};
use crate::cache::{Cache, Digest, files, plain_name};
use crate::plan::Plan;

/// The stage of a job that is to be followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its position in the plan.
    pub index: usize,
    /// Its job.
    pub id: JobId,
    /// Where the job's events go.
    pub events: PathBuf,
    /// Whether an earlier run submitted it.
    pub attached: bool,
}

/// What is to be submitted.
pub struct Wanted<'a> {
    /// The plan.
    pub plan: &'a Plan<'a>,
    /// Stages that are not up to date.
    pub pending: &'a BTreeSet<usize>,
    /// Keys of those that are.
    pub ready: &'a BTreeMap<usize, Digest>,
    /// Stages that run in any case.
    pub forced: &'a BTreeSet<usize>,
    /// What stages ask of a node.
    pub ask: &'a dyn Fn(usize) -> Ask,
    /// How jobs are run.
    pub jobs: &'a JobOptions,
}

/// A submitter at work: no other of the same pipeline is.
#[derive(Debug)]
pub struct Submitter {
    slurm: Slurm,
    folder: Folder,
    lock: File,
    submitted: Submitted,
    live: Vec<Live>,
}

impl Submitter {
    /// Looks at what was submitted before. Which stages are up to date must be asked *after* this: what
    /// is not live here has been recorded by then.
    ///
    /// # Errors
    ///
    /// Slurm is not installed or does not answer; files that cannot be read or written.
    pub fn begin(cache: &Cache, plan: &Plan) -> Result<Self> {
        let (slurm, pipeline) = (Slurm, plan.pipeline());
        let cluster = slurm.cluster()?;
        let folder = Folder::of(cache, &pipeline.name, &pipeline.file, &cluster);
        let lock = folder.lock()?;
        let mut submitted = folder.read()?;
        let seen: Vec<Seen> = slurm.jobs()?;
        submitted.find(&seen);
        submitted.forget(&seen);
        let live = submitted.live(&seen);
        if live.is_empty() {
            folder.clear()?;
        }
        submitted.format = Submitted::FORMAT;
        submitted.file = pipeline.file.display().to_string();
        submitted.cluster = cluster;
        // What is over needs no result any more: a collection looks here.
        folder.write(&submitted)?;
        Ok(Self { slurm, folder, lock, submitted, live })
    }

    /// The folder of the pipeline's jobs.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Jobs that are pending or running.
    pub fn live(&self) -> &[Live] {
        &self.live
    }

    /// Takes over what fits, cancels what does not, submits what is missing, producers first. What was
    /// submitted is cancelled if a later job is refused.
    pub fn submit(mut self, wanted: &Wanted) -> Result<Vec<Followed>> {
        let definitions = definitions(wanted.plan);
        let digest = |index: usize| {
            let forced = wanted.forced.contains(&index);
            definition::job(
                &definitions[&index],
                forced,
                &(wanted.ask)(index).options(),
                wanted.jobs,
            )
        };
        let attached = attach(wanted.plan, wanted.pending, &self.live, digest);
        let id = |index: usize| wanted.plan.stage(index).id.as_str();
        let pending: BTreeSet<&str> = wanted.pending.iter().map(|&index| id(index)).collect();
        let taken: BTreeSet<JobId> = attached.values().map(|live| live.id).collect();
        let unfit = self.live.iter().filter(|live| pending.contains(live.stage.as_str()));
        self.slurm.cancel(&unfit.map(|live| live.id).filter(|id| !taken.contains(id)).collect())?;
        let missing: BTreeSet<usize> =
            wanted.pending.iter().copied().filter(|index| !attached.contains_key(index)).collect();
        let keys = HandOver::new(self.folder.keys());
        for (index, key) in wanted.ready {
            keys.put(id(*index), key)?;
        }
        for index in &missing {
            keys.forget(id(*index))?;
        }
        let jobs = attached.iter().map(|(index, live)| (*index, live.id)).collect();
        let groups = groups(wanted.plan, &missing, &jobs, |index| (wanted.ask)(index).options());
        let mut followed: Vec<Followed> = attached
            .into_iter()
            .map(|(index, live)| {
                let events = self.folder.jobs().join(&live.events);
                Followed { index, id: live.id, events, attached: true }
            })
            .collect();
        let mut numbers = Vec::new();
        for group in &groups {
            match self.submit_group(wanted, group, &numbers, &definitions, &digest) {
                Ok(number) => numbers.push(number),
                Err(error) => {
                    let jobs = numbers.into_iter().map(|job| JobId { job, task: None });
                    // The first error is the one to tell.
                    let _ = self.slurm.cancel(&jobs.collect());
                    return Err(error);
                }
            }
            let submission = self.submitted.jobs.last();
            let tasks = submission.into_iter().flat_map(|submission| &submission.tasks);
            for task in tasks {
                followed.push(Followed {
                    index: group.tasks[&task.number],
                    id: group.job(numbers[numbers.len() - 1], task.number),
                    events: self.folder.jobs().join(&task.events),
                    attached: false,
                });
            }
        }
        Ok(followed)
    }

    /// Submits a job; it stands in the state file before and, with its number, after.
    fn submit_group(
        &mut self,
        wanted: &Wanted,
        group: &Group,
        numbers: &[u64],
        definitions: &BTreeMap<usize, Digest>,
        digest: &impl Fn(usize) -> Digest,
    ) -> Result<u64> {
        let pipeline = wanted.plan.pipeline();
        let time = Timestamp::now();
        let token = format!("qpipe:{}.{}", time.as_millisecond(), files::unique());
        let (mut tasks, mut lines) = (Vec::new(), Vec::new());
        for (&number, &index) in &group.tasks {
            let stage = wanted.plan.stage(index).id.clone();
            let events = format!("{}.{}.jsonl", plain_name(&stage), &token[6..]);
            lines.push(Task {
                number,
                stage: stage.clone(),
                events: self.folder.jobs().join(&events),
                definition: definitions[&index].hex(),
                forced: wanted.forced.contains(&index),
            });
            tasks.push(SubmittedTask { number, stage, digest: digest(index), events });
        }
        let (job, array) = (None, group.is_array());
        let submission =
            Submission { token: token.clone(), job, time: time.to_string(), array, tasks };
        self.submitted.jobs.push(submission);
        self.folder.write(&self.submitted)?;
        let (marker, keys) = (self.folder.marker(), self.folder.keys());
        let text = script::script(wanted.jobs, &pipeline.file, &marker, &keys, &lines);
        let options =
            script::options(group, &pipeline.name, &token, &pipeline.folder, numbers, wanted.jobs);
        let what = format!("the job of {}", group.name);
        let result = self.slurm.submit(&options, &text, &what, &self.lock);
        match &result {
            Ok(number) => {
                if let Some(last) = self.submitted.jobs.last_mut() {
                    last.job = Some(*number);
                }
            }
            Err(_) => {
                self.submitted.jobs.pop();
            }
        }
        self.folder.write(&self.submitted)?;
        result
    }
}

/// The live jobs that can be taken over: the same stage, definition and options, and producers that
/// are up to date or taken over too.
fn attach(
    plan: &Plan,
    pending: &BTreeSet<usize>,
    live: &[Live],
    digest: impl Fn(usize) -> Digest,
) -> BTreeMap<usize, Live> {
    let mut attached: BTreeMap<usize, Live> = BTreeMap::new();
    for index in plan.order().filter(|index| pending.contains(index)) {
        let fits =
            |producer: &usize| !pending.contains(producer) || attached.contains_key(producer);
        if !plan.producers(index).iter().all(fits) {
            continue;
        }
        let (stage, digest) = (&plan.stage(index).id, digest(index));
        let found = live.iter().find(|live| live.stage == *stage && live.digest == digest);
        attached.extend(found.map(|live| (index, live.clone())));
    }
    attached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::test_pipeline;

    #[test]
    fn a_job_is_taken_over_if_it_is_the_same_and_so_are_those_before_it() {
        let pipeline = test_pipeline(&["a", "b < a", "c < b", "d", "e < d", "f"]);
        let plan = Plan::new(&pipeline);
        let digest = |index: usize| Digest::of(plan.stage(index).id.as_bytes());
        let live = |stage: &str, of: &str, job| Live {
            id: JobId { job, task: None },
            digest: Digest::of(of.as_bytes()),
            events: String::new(),
            stage: stage.to_owned(),
        };
        // a is up to date; c and e have jobs that fit, d one that does not.
        let live = [
            live("b", "b", 1),
            live("c", "c", 2),
            live("d", "other", 3),
            live("e", "e", 4),
            live("a", "a", 5),
        ];
        let pending = [1, 2, 3, 4, 5].into();
        let attached = attach(&plan, &pending, &live, digest);
        let jobs: Vec<(usize, u64)> =
            attached.iter().map(|(index, live)| (*index, live.id.job)).collect();
        assert_eq!(jobs, [(1, 1), (2, 2)]);
    }
}
