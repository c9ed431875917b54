//! Jobs that ended without telling what came of their stage: what Slurm says of them.

use std::path::Path;

use super::events::last_lines;
use super::job::{Detail, JobId};
use super::script::{NO_CACHE, NO_PROGRAM, errors};
use crate::exec::failure::{StageFailure, failure};
use crate::task::Blame;

/// What is known of a job that ended.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// The job.
    pub id: JobId,
    /// Its last state; `None` if Slurm does not know it any more.
    pub state: Option<&'a str>,
    /// Slurm's reason.
    pub reason: &'a str,
    /// Where it ran; empty if it did not.
    pub node: &'a str,
    /// Its exit status and limits, where Slurm still has them.
    pub detail: Option<Detail>,
    /// The file of its events.
    pub events: &'a Path,
    /// What nodes must see of the cache.
    pub marker: &'a Path,
    /// The program that it starts.
    pub program: &'a Path,
}

/// How many lines of its other output are shown.
const TAIL: usize = 20;

impl End<'_> {
    /// As a failure of its stage.
    pub fn failure(&self) -> StageFailure {
        let (blame, message, help) = self.verdict();
        let log = errors(self.events);
        let tail = last_lines(&log, TAIL);
        let log = (!tail.is_empty()).then_some(log);
        StageFailure { failure: failure(blame, message, Some(&help)), tail, log }
    }

    fn verdict(&self) -> (Blame, String, String) {
        let (id, detail) = (self.id, self.detail.clone().unwrap_or_default());
        let node = if self.node.is_empty() { String::new() } else { format!(" on {}", self.node) };
        let Some(state) = self.state else {
            let message = format!("Slurm does not know job {id} any more, and it left no result");
            let help =
                "the controller lost it, or it ended long ago: run again, which submits it anew"
                    .to_owned();
            return (Blame::Machine, message, help);
        };
        let message = match self.reason {
            "" | "None" => format!("Slurm ended job {id}{node}: {state}"),
            reason => format!("Slurm ended job {id}{node}: {state} ({reason})"),
        };
        let node = if self.node.is_empty() { "the node" } else { self.node };
        match state {
            "FAILED" if detail.exit == NO_CACHE => {
                let folder = self.marker.parent().unwrap_or(self.marker);
                let message =
                    format!("{node} does not see the cache: {} is not there", folder.display());
                let help = "the cache must be on a file system that all nodes share: name one with `--cache` or QPIPE_CACHE";
                (Blame::Machine, message, help.to_owned())
            }
            "FAILED" if detail.exit == NO_PROGRAM => {
                let message = format!("{node} does not see the program {}", self.program.display());
                let help =
                    "install qpipe on a file system that all nodes share, and start it from there";
                (Blame::Machine, message, help.to_owned())
            }
            "TIMEOUT" | "DEADLINE" => {
                let help = format!(
                    "its limit was {}: raise the stage's `timeout`, or give another with `--slurm-option=--time=…`",
                    if detail.time_limit.is_empty() { "reached" } else { &detail.time_limit }
                );
                (Blame::User, message, help)
            }
            "OUT_OF_MEMORY" => {
                let help = "raise `resources = { memory = … }` of the stage".to_owned();
                (Blame::User, message, help)
            }
            "CANCELLED" => {
                let help = "somebody cancelled it (`scancel`), or the cluster did: run again, which submits what is missing";
                (Blame::Machine, message, help.to_owned())
            }
            "NODE_FAIL" | "BOOT_FAIL" | "PREEMPTED" | "REVOKED" => {
                let help = "the stage is not at fault: run again, which submits what is missing"
                    .to_owned();
                (Blame::Machine, message, help)
            }
            _ if detail.signal != 0 => {
                let message = format!("{message}, by signal {}", detail.signal);
                let help = match detail.signal {
                    libc::SIGKILL => {
                        "a job that takes more memory than it asked for ends like this: raise `resources = { memory = … }` of the stage, or see its output"
                    }
                    _ => "its output follows where it printed any",
                };
                let help = help.to_owned();
                (Blame::Machine, message, help)
            }
            _ => {
                let message = format!("{message}, exit status {}", detail.exit);
                let help = "the job ended before or after its stage: see its output, and `setup` in `[slurm]`".to_owned();
                (Blame::Machine, message, help)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(state: Option<&str>, reason: &str, exit: i32) -> String {
        let end = End {
            id: JobId { job: 12, task: Some(3) },
            state,
            reason,
            node: "n1",
            detail: Some(Detail { exit, signal: 0, time_limit: "00:07:00".to_owned() }),
            events: Path::new("/nowhere/a.jsonl"),
            marker: Path::new("/c/slurm/p/marker"),
            program: Path::new("/bin/qpipe"),
        };
        let failure = end.failure().failure;
        format!("{} | {}", failure.message, failure.help.unwrap())
    }

    #[test]
    fn each_end_says_what_happened_and_what_to_do() {
        let said = end(Some("TIMEOUT"), "TimeLimit", 0);
        assert!(
            said.starts_with(
                "Slurm ended job 12_3 on n1: TIMEOUT (TimeLimit) | its limit was 00:07:00: raise"
            ),
            "{said}"
        );
        assert!(
            end(Some("FAILED"), "NonZeroExitCode", NO_CACHE)
                .starts_with("n1 does not see the cache: /c/slurm/p is not there | ")
        );
        assert!(
            end(Some("FAILED"), "NonZeroExitCode", NO_PROGRAM)
                .starts_with("n1 does not see the program /bin/qpipe | ")
        );
        assert!(
            end(Some("FAILED"), "NonZeroExitCode", 3)
                .contains("FAILED (NonZeroExitCode), exit status 3 | ")
        );
        assert!(end(Some("OUT_OF_MEMORY"), "None", 0).contains("OUT_OF_MEMORY | raise `resources"));
        assert!(end(Some("CANCELLED"), "None", 0).contains("scancel"));
        assert!(end(None, "", 0).starts_with("Slurm does not know job 12_3 any more"));
    }
}
