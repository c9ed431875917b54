//! What was submitted, in a file: written before a job is submitted and again after.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::job::{JobId, Seen};
use crate::cache::Digest;

/// What was submitted for a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Version of this form.
    pub format: u32,
    /// The pipeline file, for people.
    pub file: String,
    /// The cluster's name.
    pub cluster: String,
    /// Jobs, oldest first.
    pub jobs: Vec<Submission>,
}

/// A job or an array job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Its comment in Slurm, which no other job has.
    pub token: String,
    /// Its number; `None` while it is being submitted.
    pub job: Option<u64>,
    /// When it was submitted, RFC 3339, UTC.
    pub time: String,
    /// Whether it is an array.
    pub array: bool,
    /// Its stages.
    pub tasks: Vec<SubmittedTask>,
}

/// A stage of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedTask {
    /// The element's number.
    pub number: u32,
    /// The stage's id.
    pub stage: String,
    /// What the job is, see [`super::definition::job`].
    pub digest: Digest,
    /// File of its events, below the folder of jobs.
    pub events: String,
}

/// A job of a stage that Slurm still knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Which.
    pub id: JobId,
    /// What it is.
    pub digest: Digest,
    /// File of its events, below the folder of jobs.
    pub events: String,
    /// Its stage.
    pub stage: String,
}

impl Submitted {
    /// Version of this form.
    pub const FORMAT: u32 = 1;

    /// Numbers for jobs that were submitted by a process that died before it could note them: found by
    /// their comments. What Slurm does not know was not submitted, and goes.
    pub fn find(&mut self, seen: &[Seen]) {
        for job in self.jobs.iter_mut().filter(|job| job.job.is_none()) {
            job.job = seen.iter().find(|seen| seen.comment == job.token).map(|seen| seen.id.job);
        }
        self.jobs.retain(|job| job.job.is_some());
    }

    /// Jobs that are pending or running.
    pub fn live(&self, seen: &[Seen]) -> Vec<Live> {
        let mut live = Vec::new();
        for submission in &self.jobs {
            let Some(job) = submission.job else { continue };
            for task in &submission.tasks {
                let id = JobId { job, task: submission.array.then_some(task.number) };
                // The comment tells it from a job of another time with the same number: a cluster that
                // was set up anew counts from 1.
                let known = |seen: &&Seen| seen.id == id && seen.comment == submission.token;
                if seen.iter().find(known).is_some_and(|seen| !seen.state.is_over()) {
                    let SubmittedTask { digest, events, stage, .. } = task.clone();
                    live.push(Live { id, digest, events, stage });
                }
            }
        }
        live
    }

    /// Forgets jobs whose elements are all among those that were followed to their end.
    pub fn ended(&mut self, over: &BTreeSet<JobId>) {
        self.jobs.retain(|submission| {
            let Some(job) = submission.job else { return true };
            let element = |number: u32| JobId { job, task: submission.array.then_some(number) };
            !submission.tasks.iter().all(|task| over.contains(&element(task.number)))
        });
    }

    /// Forgets jobs of which nothing is pending or running.
    pub fn forget(&mut self, seen: &[Seen]) {
        let live = self.live(seen);
        self.jobs.retain(|job| live.iter().any(|live| Some(live.id.job) == job.job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(token: &str, job: Option<u64>, array: bool, stages: &[&str]) -> Submission {
        let tasks = (0..).zip(stages).map(|(number, stage)| SubmittedTask {
            number,
            stage: (*stage).to_owned(),
            digest: Digest::of(stage.as_bytes()),
            events: format!("{stage}.jsonl"),
        });
        let time = "2026-01-01T00:00:00Z".to_owned();
        Submission { token: token.to_owned(), job, time, array, tasks: tasks.collect() }
    }

    fn stages(submitted: &Submitted, seen: &[Seen]) -> Vec<String> {
        submitted.live(seen).into_iter().map(|live| format!("{} {}", live.id, live.stage)).collect()
    }

    #[test]
    fn jobs_are_found_by_number_and_by_comment() {
        let mut submitted = Submitted {
            jobs: vec![
                submission("t1", Some(1), false, &["a"]),
                submission("t2", None, true, &["m[x]", "m[y]"]),
                submission("t3", None, false, &["never"]),
                submission("t4", Some(4), false, &["b"]),
                submission("t5", Some(5), false, &["c"]),
            ],
            ..Submitted::default()
        };
        let lines = [
            "1|COMPLETED|None|n|t1",
            "9_0|RUNNING|None|n|t2",
            "9_1|PENDING|Dependency||t2",
            "4|PENDING|None||of another",
            "5|COMPLETING|None|n|t5",
        ];
        let seen: Vec<Seen> = lines.iter().filter_map(|line| Seen::parse(line)).collect();
        submitted.find(&seen);
        assert_eq!(submitted.jobs.len(), 4);
        assert_eq!(stages(&submitted, &seen), ["9_0 m[x]", "9_1 m[y]", "5 c"]);
        submitted.forget(&seen);
        let tokens: Vec<&str> = submitted.jobs.iter().map(|job| job.token.as_str()).collect();
        assert_eq!(tokens, ["t2", "t5"]);
        let id = |job, task| JobId { job, task };
        let mut over = BTreeSet::from([id(9, Some(0)), id(5, None), id(4, None)]);
        submitted.ended(&over);
        assert_eq!(submitted.jobs.len(), 1, "an element of the array is not over");
        over.insert(id(9, Some(1)));
        submitted.ended(&over);
        assert!(submitted.jobs.is_empty());
    }
}
