//! One attempt to run a stage: a process, what it says, its outputs.

pub(crate) mod fuzzing;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blamed_line::with_line;
use super::error::{Result, RunError};
use super::event::{Event, Reporter};
use super::failure::{StageFailure, failure};
use super::gpus::{self, Gpus};
use super::keys::Done;
use super::lines::Tail;
use super::machine::Inside;
use super::process::{Ended, Launch, Stream, supervise};
use super::resources::Grant;
use super::scratch::Scratch;
use super::secrets::{self, Secrets};
use super::signals::Signals;
use super::worker_stage::Verdict;
use super::{disk, program, report_stage, reporter, worker, worker_stage};
use crate::cache::{Cache, Claim};
use crate::config::{Pipeline, StageCell};
use crate::stages::command::Command;
use crate::stages::contract::{Metrics, Runs};
use crate::task::{self, Blame};

/// What a stage's process said and did.
pub struct Attempt<'a, 'r> {
    /// The cache.
    pub cache: &'a Cache,
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The stage.
    pub cell: &'a StageCell,
    /// Where its lines go.
    pub log: PathBuf,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Its part of the machine.
    pub grant: &'a Grant,
    /// What runs that it starts are told of that.
    pub inside: Inside,
    /// The GPUs of the run.
    pub gpus: &'a Gpus,
    /// Who is told.
    pub reporter: &'a RefCell<&'r mut dyn Reporter>,
}

/// Figures and warnings of a stage that did its work.
#[derive(Debug, Default)]
pub struct Worked {
    /// Its figures.
    pub metrics: Metrics,
    /// What it warned of.
    pub warnings: Vec<String>,
}

impl Attempt<'_, '_> {
    /// Runs the stage; its outputs stand in the scratch folder then.
    pub async fn run(
        &self,
        claim: &Claim,
        scratch: &Scratch,
        done: &RefCell<Done>,
        signals: &mut Signals,
    ) -> Result<std::result::Result<Worked, StageFailure>> {
        let result = match self.cell.kind.runs {
            Runs::Runner => {
                let (out, done) = (scratch.out(), done.borrow());
                let result = report_stage::run(self.cache, self.pipeline, self.cell, &done, &out)?;
                result
                    .map(|metrics| Worked { metrics, warnings: Vec::new() })
                    .map_err(|failure| StageFailure { failure, tail: Vec::new(), log: None })
            }
            Runs::Program | Runs::Worker => self.process(claim, scratch, signals).await?,
        };
        Ok(result.and_then(|worked| self.complete(scratch).map(|()| worked)))
    }

    async fn process(
        &self,
        claim: &Claim,
        scratch: &Scratch,
        signals: &mut Signals,
    ) -> Result<std::result::Result<Worked, StageFailure>> {
        let config = self.cell.stage.as_any().downcast_ref::<Command>();
        let secrets = match Secrets::of(self.cell) {
            Ok(secrets) => secrets,
            Err(failure) => return Ok(Err(StageFailure { failure, tail: Vec::new(), log: None })),
        };
        let mut launch = match config {
            Some(config) => program::launch(self.pipeline, self.cell, config, scratch, &secrets),
            None => {
                let worker = worker::locate()?;
                let threads = self.grant.threads();
                worker_stage::launch(&worker, self.pipeline, self.cell, scratch, threads)?
            }
        };
        if let Some(visible) = self.gpus.visible(self.cell, &self.grant.gpus) {
            let variables = gpus::variables(&visible);
            launch.env.extend(variables.map(|(name, value)| (name.to_owned(), value.into())));
        }
        launch.env.push((Inside::VARIABLE.to_owned(), self.inside.variable().into()));
        let mut transcript = Transcript::new(self, config.is_none(), secrets);
        let line = |stream: Stream, line: &str| transcript.line(stream, line);
        let ended = supervise(&launch, claim, self.timeout, signals, line).await;
        let left = ended.as_ref().map_or(0, |ended| ended.survivors.len());
        // Whoever is asked to end may end before its children.
        let asked = ended.as_ref().is_ok_and(|ended| ended.interrupted || ended.timed_out);
        if left > 0 && !asked {
            let message = format!("it left {left} processes running, which were ended");
            transcript.told(task::Event::Warning { message, key: None });
        }
        let Transcript { tail, verdict, warnings, .. } = transcript;
        let outcome = match ended {
            Err(error) => Err(not_started(&launch, config, &error)),
            Ok(Ended { interrupted: true, .. }) => return Err(RunError::Interrupted),
            Ok(Ended { timed_out: true, .. }) => Err(self.timed_out()),
            Ok(ended) => match config {
                Some(config) => program::outcome(config, &ended)
                    .and_then(|()| self.written(scratch))
                    .and_then(|()| program::metrics(self.cell, scratch)),
                None => verdict.outcome(&ended),
            },
        };
        let outcome = if disk::is_full(&scratch.out()) {
            Err(no_room(scratch, outcome.err().as_ref()))
        } else {
            outcome
        };
        let log = self.log.exists().then(|| self.log.clone());
        let failed = |failure| StageFailure {
            failure: with_line(self.pipeline, self.cell, failure),
            tail: tail.lines(),
            log,
        };
        Ok(outcome.map(|metrics| Worked { metrics, warnings: warnings.told() }).map_err(failed))
    }

    fn timed_out(&self) -> task::Failure {
        let limit = self.timeout.map_or(0.0, |limit| limit.as_secs_f64());
        let message = format!("it ran longer than its timeout of {}", reporter::seconds(limit));
        failure(Blame::User, message, Some("raise `timeout`, or find out what it waits for"))
    }

    /// Whether all outputs were written.
    fn complete(&self, scratch: &Scratch) -> std::result::Result<(), StageFailure> {
        self.written(scratch).map_err(|failure| {
            let log = self.log.exists().then(|| self.log.clone());
            StageFailure { failure, tail: Vec::new(), log }
        })
    }

    fn written(&self, scratch: &Scratch) -> std::result::Result<(), task::Failure> {
        for output in self.cell.stage.outputs() {
            if fs::metadata(scratch.out().join(&output.file)).is_err() {
                let message = format!("output `{}` was not written: {}", output.port, output.file);
                let (blame, help) = match self.cell.kind.runs {
                    Runs::Program => {
                        (Blame::User, Some("the program must write it into the folder $QPIPE_OUT"))
                    }
                    Runs::Worker | Runs::Runner => (Blame::Bug, None),
                };
                return Err(failure(blame, message, help));
            }
        }
        Ok(())
    }
}

/// A stage that ended on a full disk failed, whatever it says: many a program does not notice that its
/// output was cut short.
fn no_room(scratch: &Scratch, failed: Option<&task::Failure>) -> task::Failure {
    let what = failed.map_or("it ended".to_owned(), |failed| failed.message.clone());
    let out = scratch.out();
    let message = format!("{what}; No space left on device: {}", out.display());
    failure(Blame::Machine, message, Some("make room on the disk of the cache, and run again"))
}

fn not_started(launch: &Launch, config: Option<&Command>, error: &std::io::Error) -> task::Failure {
    match config {
        Some(_) => program::not_started(launch, error),
        None => failure(Blame::Machine, format!("the worker cannot be started: {error}"), None),
    }
}

/// What a process prints, on its way to the log, the reporter and the verdict.
struct Transcript<'a, 'r> {
    stage: &'a str,
    /// Whose table a warning's key stands in.
    cell: Option<(&'a Pipeline, &'a StageCell)>,
    path: &'a Path,
    /// Made with the first line.
    log: Option<File>,
    reporter: &'a RefCell<&'r mut dyn Reporter>,
    /// Whether standard output is the worker's events.
    events: bool,
    /// Their values are taken out of all lines.
    secrets: Secrets,
    tail: Tail,
    verdict: Verdict,
    warnings: Warnings,
}

/// Warnings, as many as a record should hold; all of them are in the log.
#[derive(Debug, Default)]
struct Warnings {
    kept: Vec<String>,
    bytes: usize,
    left_out: usize,
}

impl Warnings {
    /// More than this would be read by nobody, bytes.
    const LIMIT: usize = 64 << 10;

    fn push(&mut self, warning: String) {
        self.bytes = self.bytes.saturating_add(warning.len());
        if self.bytes <= Self::LIMIT {
            self.kept.push(warning);
        } else {
            self.left_out += 1;
        }
    }

    fn told(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.kept.push(format!("{} more warnings are in its log", self.left_out));
        }
        self.kept
    }
}

impl<'a, 'r> Transcript<'a, 'r> {
    fn new(attempt: &'a Attempt<'_, 'r>, events: bool, secrets: Secrets) -> Self {
        Self {
            stage: &attempt.cell.id,
            cell: Some((attempt.pipeline, attempt.cell)),
            path: &attempt.log,
            log: None,
            reporter: attempt.reporter,
            events,
            secrets,
            tail: Tail::default(),
            verdict: Verdict::default(),
            warnings: Warnings::default(),
        }
    }

    /// Adds a line to the log. A log on a full disk is no reason to lose the stage.
    fn write(&mut self, line: &str) {
        if self.log.is_none() {
            let _ = self.path.parent().map(fs::create_dir_all);
            self.log = File::options().create(true).append(true).open(self.path).ok();
        }
        let _ = self.log.as_mut().map(|log| writeln!(log, "{line}"));
    }

    fn tell(&self, event: &Event) {
        self.reporter.borrow_mut().event(event);
    }

    fn line(&mut self, stream: Stream, line: &str) {
        let line = &secrets::mask(line, &self.secrets).into_owned();
        let event = (self.events && stream == Stream::Output)
            .then(|| serde_json::from_str::<task::Event>(line).ok())
            .flatten();
        match event {
            None => self.text(line),
            Some(event) => {
                if let Some(event) = self.verdict.take(event) {
                    self.told(event);
                }
            }
        }
    }

    fn text(&mut self, line: &str) {
        self.write(line);
        self.tail.push(line);
        self.tell(&Event::Log { stage: self.stage, message: line });
    }

    fn told(&mut self, event: task::Event) {
        match event {
            task::Event::Progress { done, total, unit, message } => {
                let (unit, message) = (unit.as_str(), message.as_str());
                let stage = self.stage;
                self.tell(&Event::Progress { stage, done, total, unit, message });
            }
            task::Event::Log { message } => self.text(&message),
            task::Event::Warning { message, key } => {
                let told = match (self.cell, key) {
                    (Some((pipeline, cell)), Some(key)) => {
                        format!("{}: {message}", pipeline.place_of(cell, &key))
                    }
                    _ => message.clone(),
                };
                let line = format!("warning: {told}");
                self.write(&line);
                self.tail.push(&line);
                let stage = Some(self.stage);
                self.tell(&Event::Warning { stage, message: &told });
                // Without the place: lines move, and what is recorded is shown later too.
                self.warnings.push(message);
            }
            // The verdict took these.
            task::Event::Done { .. } | task::Event::Failed { .. } => {}
        }
    }
}
