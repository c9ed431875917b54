//! The executor: a run's stages go to Slurm, and what comes of them into the run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::client::Slurm;
use super::follow::{Ended, Follower, Watcher};
use super::job::JobId;
use super::keys::HandOver;
use super::script::{Ask, JobOptions};
use super::submit::{Submitter, Wanted};
use crate::cache::{ActionKey, Cache, Digest, Lookup};
use crate::config::StageCell;
use crate::exec::error::{Result, RunError};
use crate::exec::event::Event;
use crate::exec::executor::{Executor, Work};
use crate::exec::failure::StageFailure;
use crate::exec::machinery;
use crate::exec::runner::{Needed, Run};
use crate::exec::signals::Signals;
use crate::plan::Plan;
use crate::stages::contract::Demand;

/// How stages are submitted.
#[derive(Clone, Debug, Default)]
pub struct SlurmOptions {
    /// Options of `sbatch`, such as `--partition=gpu`.
    pub sbatch: Vec<String>,
    /// Shell lines before the program starts on a node.
    pub setup: String,
    /// Arguments of `qpipe run` that jobs take over.
    pub arguments: Vec<String>,
}

/// A Slurm cluster.
#[derive(Debug)]
pub struct Cluster {
    options: SlurmOptions,
}

impl Cluster {
    /// With what the user asks of it.
    pub fn new(options: SlurmOptions) -> Self {
        Self { options }
    }

    fn jobs(&self, run: &Run) -> Result<JobOptions> {
        let program = std::env::current_exe().map_err(|source| RunError::Io {
            action: "find",
            path: "/proc/self/exe".into(),
            source,
        })?;
        let mut arguments = self.options.arguments.clone();
        arguments.extend(["--cache".to_owned(), run.cache.root().display().to_string()]);
        Ok(JobOptions {
            program,
            arguments,
            setup: self.options.setup.clone(),
            sbatch: self.options.sbatch.clone(),
            limit: run.options.jobs,
        })
    }
}

impl Executor for Cluster {
    fn execute(&self, run: &Run, work: Work) -> Result<()> {
        let (runtime, signals, _ender) = machinery::start()?;
        let submitter = Submitter::begin(run.cache, run.plan)?;
        let folder = submitter.folder().clone();
        let needed = again(run, work, &HandOver::new(folder.keys()))?;
        let ready: BTreeMap<usize, Digest> =
            run.notes.borrow().iter().map(|(index, note)| (*index, note.key)).collect();
        let pending: BTreeSet<usize> =
            run.plan.order().filter(|index| !ready.contains_key(index)).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let jobs = self.jobs(run)?;
        let program = jobs.program.clone();
        let followed = submitter.submit(&Wanted {
            plan: run.plan,
            pending: &pending,
            ready: &ready,
            forced: &run.forced,
            ask: &|index| ask(run.stage(index)),
            jobs: &jobs,
        })?;
        let reasons = needed.values().map(|needed| (needed.stage, needed.why.clone())).collect();
        let jobs: BTreeSet<JobId> = followed.iter().map(|job| job.id).collect();
        let mut watcher = Watching { run, runtime, signals, needed, reasons };
        let follower = Follower::new(run.plan, &folder, followed, program, run.options.keep_going);
        match follower.run(&mut watcher)? {
            Ended::Over => {
                // Their results are pinned by this run now; a collection need not keep them for jobs.
                let _lock = folder.lock()?;
                let mut submitted = folder.read()?;
                submitted.ended(&jobs);
                Ok(folder.write(&submitted)?)
            }
            Ended::Interrupted => Err(RunError::Interrupted),
        }
    }
}

/// Cancels the jobs of a pipeline, whichever run submitted them; how many there were.
///
/// # Errors
///
/// Slurm is not installed or does not answer.
pub fn cancel(cache: &Cache, plan: &Plan) -> Result<usize> {
    let submitter = Submitter::begin(cache, plan)?;
    let jobs: BTreeSet<_> = submitter.live().iter().map(|live| live.id).collect();
    Slurm.cancel(&jobs)?;
    Ok(jobs.len())
}

/// What a stage asks of a node: what its table says. Of its kind only whether it wants the node alone:
/// how large nodes are is not known here.
fn ask(cell: &StageCell) -> Ask {
    let (execution, demand) = (&cell.execution, cell.stage.demand());
    let wanted = execution.resources.clone().unwrap_or_default();
    let time = execution.timeout.map(|timeout| {
        let retries = execution.retries;
        let pauses = (1..=retries.count).map(|attempt| retries.pause(attempt));
        pauses.fold(timeout.saturating_mul(retries.count + 1), Duration::saturating_add)
    });
    Ask {
        cpus: wanted.cpus.unwrap_or(0.0),
        memory: wanted.memory.unwrap_or(0),
        gpus: wanted.gpus.unwrap_or(0.0),
        alone: execution.exclusive.unwrap_or(demand == Demand::Alone),
        time,
    }
}

/// Looks up again what was not up to date: a job of an earlier run may have ended meanwhile, and a node
/// may have other facts than this machine. Returns what is needed, as far as keys are known.
fn again(run: &Run, work: Work, keys: &HandOver) -> Result<BTreeMap<usize, Needed>> {
    let Work { mut scheduler, needed } = work;
    let mut open: VecDeque<usize> = needed.into_iter().map(|needed| needed.stage).collect();
    let mut left = BTreeMap::new();
    while let Some(index) = open.pop_front().or_else(|| scheduler.take()) {
        let found = match run.look(index)? {
            None => None,
            Some(needed) if elsewhere(run, &needed, keys)? => None,
            Some(needed) => Some(needed),
        };
        match found {
            None => scheduler.succeeded(index),
            Some(needed) => {
                left.insert(index, needed);
            }
        }
    }
    Ok(left)
}

/// Takes what the stage came to on a node, if only facts of the machine are others there.
fn elsewhere(run: &Run, needed: &Needed, keys: &HandOver) -> Result<bool> {
    let key = keys.get(&run.stage(needed.stage).id);
    let Some(key) = key.filter(|_| !needed.forced) else { return Ok(false) };
    let _hold = run.session.borrow().hold()?;
    let Lookup::Hit(record) = run.cache.lookup(&key)? else { return Ok(false) };
    let there = ActionKey { facts: needed.key.facts.clone(), ..record.key.clone() };
    if there != needed.key {
        return Ok(false);
    }
    run.session.borrow_mut().pin(&key)?;
    run.cached(needed.stage, key, *record);
    Ok(true)
}

/// The run, as the follower sees it.
struct Watching<'r, 'p> {
    run: &'r Run<'p>,
    runtime: Runtime,
    signals: Signals,
    /// Stages whose keys are known.
    needed: BTreeMap<usize, Needed>,
    /// Why stages ran, as their jobs told.
    reasons: BTreeMap<usize, String>,
}

impl Watching<'_, '_> {
    /// A stage that ran or failed, under a key if it is known.
    fn needed(&self, index: usize, key: Option<ActionKey>) -> Needed {
        let why = self.reasons.get(&index).cloned().unwrap_or_default();
        let forced = self.run.forced.contains(&index);
        let (pipeline, cell) = (self.run.plan.pipeline(), self.run.stage(index));
        let known = key.or_else(|| self.needed.get(&index).map(|needed| needed.key.clone()));
        let made = || self.run.keys.borrow_mut().key(pipeline, cell, &self.run.done.borrow()).ok();
        let made = || made().map(|(key, _)| key);
        // Of a stage that failed although one that it needs is not known to be done: it is only told
        // in the history.
        let unknown = || ActionKey {
            format: ActionKey::FORMAT,
            kind: cell.kind.name.to_owned(),
            kind_version: cell.kind.version,
            config: cell.stage.config(),
            inputs: BTreeMap::new(),
            seed: cell.seed,
            facts: BTreeMap::new(),
        };
        let key = known.or_else(made).unwrap_or_else(unknown);
        let digest = key.digest();
        // What changed was known where nothing that it waits for had to run first.
        let same = self.needed.get(&index).filter(|needed| needed.digest == digest);
        let changes = same.map(|needed| needed.changes.clone()).unwrap_or_default();
        let before = same.and_then(|needed| needed.before);
        Needed { stage: index, key, digest, why, changes, before, forced, lack: None }
    }
}

impl Watcher for Watching<'_, '_> {
    fn event(&mut self, event: &Event) {
        if let Event::Started { stage, reason } = event {
            let mut order = self.run.plan.order();
            let index = order.find(|index| self.run.stage(*index).id == *stage);
            self.reasons.extend(index.map(|index| (index, (*reason).to_owned())));
        }
        self.run.tell(event);
    }

    fn done(&mut self, index: usize, key: &Digest, ran: Option<(f64, bool)>) -> Result<bool> {
        let _hold = self.run.session.borrow().hold()?;
        let Lookup::Hit(record) = self.run.cache.lookup(key)? else { return Ok(false) };
        self.run.session.borrow_mut().pin(key)?;
        match ran {
            None => self.run.cached(index, *key, *record),
            Some((seconds, unchanged)) => {
                let needed = self.needed(index, Some(record.key.clone()));
                self.run.ran(&needed, *record, seconds, unchanged);
            }
        }
        Ok(true)
    }

    fn failed(&mut self, index: usize, seconds: f64, failure: &StageFailure) {
        self.run.failed(&self.needed(index, None), seconds, failure);
    }

    fn skipped(&mut self, index: usize, failed: Option<usize>) {
        match failed {
            Some(failed) => self.run.lost(&[index], failed),
            None => self.run.summary.borrow_mut().skipped += 1,
        }
    }

    fn wait(&mut self, time: Duration) -> Result<bool> {
        let signals = &mut self.signals;
        Ok(self.runtime.block_on(async {
            tokio::select! {
                () = signals.next() => true,
                () = tokio::time::sleep(time) => false,
            }
        }))
    }
}
