//! What a run tells: the executor emits, reporters only subscribe.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::guards::Outcome;
use super::review::Figure;
use crate::report::{Report, SweepTable};
use crate::task::Blame;

/// Something that happened in a run. Its JSON is a line of `--json`; see docs/events.md.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// The run begins.
    Planned {
        /// The pipeline's name.
        pipeline: &'a str,
        /// How many stages were selected.
        stages: usize,
    },
    /// A stage is up to date.
    Cached {
        /// Its id.
        stage: &'a str,
        /// Warnings that it gave when it ran.
        warnings: &'a [String],
    },
    /// A stage is a job of a cluster now.
    Submitted {
        /// Its id.
        stage: &'a str,
        /// The job's number, and its element's.
        job: &'a str,
        /// Whether an earlier run submitted it.
        attached: bool,
    },
    /// A stage was up to date in the remote cache: its result was taken from there.
    Pulled {
        /// Its id.
        stage: &'a str,
        /// Wall time.
        seconds: f64,
        /// Bytes of its outputs.
        bytes: u64,
        /// Warnings that it gave when it ran.
        warnings: &'a [String],
    },
    /// A stage's result is in the remote cache now.
    Pushed {
        /// Its id.
        stage: &'a str,
        /// Objects that were not there yet.
        objects: usize,
        /// Bytes of them that went over the line.
        bytes: u64,
    },
    /// A stage begins.
    Started {
        /// Its id.
        stage: &'a str,
        /// Why it runs.
        reason: &'a str,
    },
    /// Another run does the same stage: this one waits for it.
    Waiting {
        /// Its id.
        stage: &'a str,
        /// The other run's process, where known.
        pid: Option<i32>,
    },
    /// A stage waits for other runs on this machine.
    WaitingForMachine {
        /// Its id.
        stage: &'a str,
        /// Whether it needs the machine alone; otherwise another run's stage does.
        alone: bool,
    },
    /// A stage waits for a GPU that a stage of another run on this machine has.
    WaitingForGpu {
        /// Its id.
        stage: &'a str,
    },
    /// How far a stage is.
    Progress {
        /// Its id.
        stage: &'a str,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What a unit is.
        unit: &'a str,
        /// What is being done.
        message: &'a str,
    },
    /// How long the run will take from now, by what its stages took before; at most once a second.
    TimeLeft {
        /// Wall time.
        seconds: f64,
    },
    /// A line of a stage's log.
    Log {
        /// Its id.
        stage: &'a str,
        /// The line.
        message: &'a str,
    },
    /// Something that the user should know although the run goes on.
    Warning {
        /// The stage that it is about, if it is about one.
        stage: Option<&'a str>,
        /// What.
        message: &'a str,
    },
    /// A stage succeeded.
    Finished {
        /// Its id.
        stage: &'a str,
        /// Wall time.
        seconds: f64,
        /// Whether all outputs are what they were: its users need not run.
        unchanged: bool,
    },
    /// An attempt to run a stage failed; it is tried again.
    Retrying {
        /// Its id.
        stage: &'a str,
        /// Wall time of the attempt.
        seconds: f64,
        /// What happened and where.
        message: &'a str,
        /// Which attempt the next one is, from 1.
        attempt: u32,
        /// How many attempts there may be.
        attempts: u32,
        /// Seconds until then.
        after: f64,
    },
    /// A stage failed.
    Failed {
        /// Its id.
        stage: &'a str,
        /// Wall time.
        seconds: f64,
        /// Whose fault it is.
        blame: Blame,
        /// What happened and where.
        message: &'a str,
        /// What to do about it.
        help: Option<&'a str>,
        /// Its last lines.
        tail: &'a [String],
        /// All its lines, where it printed any.
        log: Option<&'a Path>,
    },
    /// A stage does not run because one that it needs failed.
    Skipped {
        /// Its id.
        stage: &'a str,
        /// The stage that failed.
        failed: &'a str,
    },
    /// The table of a report stage.
    Report {
        /// Its id.
        stage: &'a str,
        /// The table.
        report: &'a Report,
    },
    /// The table of a sweep.
    Sweep {
        /// The table.
        table: &'a SweepTable,
    },
    /// Figures that are not what they were, where a run compares them.
    Figures {
        /// What they are compared with.
        against: &'a str,
        /// Those that changed, by stage and name.
        changes: &'a [Figure],
    },
    /// What came of a guard.
    Guard(&'a Outcome),
    /// What came of all guards.
    Guards {
        /// What figures are compared with.
        against: &'a str,
        /// How many are not broken.
        held: usize,
        /// How many are broken.
        broken: usize,
        /// How many were not looked at.
        skipped: usize,
        /// Whether the new figures are accepted all the same.
        accepted: bool,
        /// Each of them; they were told before.
        #[serde(skip)]
        outcomes: &'a [Outcome],
    },
    /// The run is over; the last event.
    Summary(&'a Summary),
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Stages that ran and succeeded.
    pub ran: usize,
    /// Stages that were up to date.
    pub cached: usize,
    /// Stages whose results were taken from the remote cache.
    pub pulled: usize,
    /// Stages that failed.
    pub failed: usize,
    /// Stages that were not tried.
    pub skipped: usize,
    /// Guards that are broken.
    pub broken_guards: usize,
    /// Wall time.
    pub seconds: f64,
    /// Where the artifacts are under readable names.
    pub artifacts: PathBuf,
    /// The lock file, if the run changed it.
    pub lock_file: Option<PathBuf>,
    /// The lock file, if it stays as it is although the run came to something else: `--set` changed the pipeline.
    pub lock_file_kept: Option<PathBuf>,
    /// Whose fault the first failure is.
    #[serde(skip)]
    pub blame: Option<Blame>,
}

/// The message of the progress of a stage whose result is taken from the remote cache.
pub const PULLING: &str = "pulling";

/// Who is told of events.
pub trait Reporter {
    /// Takes an event.
    fn event(&mut self, event: &Event);
}
