//! A job's name, state and end, as `squeue` and `scontrol` print them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A job, or an element of an array job: `12` or `12_3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId {
    /// The number that `sbatch` printed.
    pub job: u64,
    /// The element's number.
    pub task: Option<u32>,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            Some(task) => write!(f, "{}_{task}", self.job),
            None => write!(f, "{}", self.job),
        }
    }
}

impl JobId {
    /// Reads `12` or `12_3`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('_') {
            Some((job, task)) => {
                Some(Self { job: job.parse().ok()?, task: Some(task.parse().ok()?) })
            }
            None => Some(Self { job: text.parse().ok()?, task: None }),
        }
    }
}

/// How far a job is, as Slurm calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(pub String);

impl State {
    /// It has not begun.
    pub fn is_pending(&self) -> bool {
        matches!(
            self.0.as_str(),
            "PENDING"
                | "CONFIGURING"
                | "REQUEUED"
                | "REQUEUE_HOLD"
                | "REQUEUE_FED"
                | "SPECIAL_EXIT"
                | "RESV_DEL_HOLD"
        )
    }

    /// Slurm ended it, or somebody through Slurm.
    pub fn is_by_slurm(&self) -> bool {
        self.is_over() && !matches!(self.0.as_str(), "COMPLETED" | "FAILED")
    }

    /// Nothing of it runs or will run.
    pub fn is_over(&self) -> bool {
        matches!(
            self.0.as_str(),
            "COMPLETED"
                | "FAILED"
                | "CANCELLED"
                | "TIMEOUT"
                | "OUT_OF_MEMORY"
                | "NODE_FAIL"
                | "BOOT_FAIL"
                | "DEADLINE"
                | "PREEMPTED"
                | "REVOKED"
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line of `squeue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which job.
    pub id: JobId,
    /// How far it is.
    pub state: State,
    /// Why it waits or how it ended.
    pub reason: String,
    /// The node that it runs or ran on; empty before.
    pub node: String,
    /// The comment that it was submitted with.
    pub comment: String,
}

/// What `squeue --format` must be given for [`Seen::parse`]: id, state, reason, nodes, comment.
pub const FORMAT: &str = "%i|%T|%r|%N|%k";

impl Seen {
    /// Reads a line; `None` if it is no line about a job.
    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(5, '|').map(str::trim);
        let id = JobId::parse(parts.next()?)?;
        let state = State(parts.next()?.to_owned());
        let mut text = || parts.next().filter(|text| *text != "(null)").unwrap_or("").to_owned();
        Some(Self { id, state, reason: text(), node: text(), comment: text() })
    }
}

/// How a job ended, from `scontrol show job --oneliner`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Exit status of the job's script.
    pub exit: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// How long it was allowed to take, as Slurm writes it.
    pub time_limit: String,
}

impl Detail {
    /// Reads the record of a job among those that `scontrol` printed.
    pub fn parse(text: &str, id: JobId) -> Option<Self> {
        let field = |line: &str, name: &str| {
            let words = line.split_whitespace();
            words
                .filter_map(|word| word.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let line = text.lines().find(|line| match id.task {
            None => field(line, "JobId") == Some(id.job.to_string()),
            Some(task) => {
                field(line, "ArrayJobId") == Some(id.job.to_string())
                    && field(line, "ArrayTaskId") == Some(task.to_string())
            }
        })?;
        let code = field(line, "ExitCode")?;
        let (exit, signal) = code.split_once(':')?;
        Some(Self {
            exit: exit.parse().ok()?,
            signal: signal.parse().ok()?,
            time_limit: field(line, "TimeLimit").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by Slurm 22.05.
    const QUEUE: &str = "\
1_2|COMPLETED|None|vm|qpipe:20261124-1
1_0|RUNNING|None|vm|x
2|FAILED|NonZeroExitCode|vm|(null)
6|CANCELLED|DependencyNeverSatisfied||a|b
";

    #[test]
    fn lines_of_squeue_are_read() {
        let seen: Vec<Seen> = QUEUE.lines().filter_map(Seen::parse).collect();
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0].id, JobId { job: 1, task: Some(2) });
        assert_eq!(seen[0].comment, "qpipe:20261124-1");
        assert!(seen[0].state.is_over() && !seen[1].state.is_over() && !seen[1].state.is_pending());
        assert_eq!((seen[2].reason.as_str(), seen[2].comment.as_str()), ("NonZeroExitCode", ""));
        assert_eq!((seen[3].node.as_str(), seen[3].comment.as_str()), ("", "a|b"));
        assert_eq!(Seen::parse("slurm_load_jobs error: Invalid job id specified"), None);
    }

    #[test]
    fn the_end_of_the_right_element_is_read() {
        let text = "JobId=3 ArrayJobId=1 ArrayTaskId=0 JobName=wrap JobState=FAILED ExitCode=3:0 TimeLimit=00:01:00\n\
                    JobId=1 ArrayJobId=1 ArrayTaskId=2 JobName=a=b JobState=FAILED ExitCode=0:9 TimeLimit=UNLIMITED\n";
        let detail = Detail::parse(text, JobId { job: 1, task: Some(0) }).unwrap();
        assert_eq!((detail.exit, detail.signal, detail.time_limit.as_str()), (3, 0, "00:01:00"));
        let detail = Detail::parse(text, JobId { job: 1, task: Some(2) }).unwrap();
        assert_eq!((detail.exit, detail.signal), (0, 9));
        assert_eq!(Detail::parse(text, JobId { job: 7, task: None }), None);
    }
}
