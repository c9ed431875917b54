//! The run of a plan: what is up to date is found, what is not goes to an executor.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::commit::Asked;
use super::error::{Result, RunError};
use super::event::{Event, Reporter, Summary};
use super::executor::slurm::Cluster;
use super::executor::{Executor, Local, Work};
use super::failure::StageFailure;
use super::gpus::Gpus;
use super::keys::{Done, Keys};
use super::locked::Held;
use super::past::{Past, label};
use super::reason::{self, Change};
use super::review::Guarding;
use super::scheduler::Scheduler;
use super::scratch::Spares;
use super::{ExecutorChoice, Locked, Options, history};
use crate::cache::{ActionKey, ActionRecord, Cache, Digest, Lookup, Session, files};
use crate::config::StageCell;
use crate::plan::Plan;
use crate::task::Failure;

/// Runs what is not up to date.
///
/// # Errors
///
/// What ends the run as a whole; a stage that failed is in the summary.
pub fn run(
    plan: &Plan,
    cache: &Cache,
    options: &Options,
    reporter: &mut dyn Reporter,
) -> Result<Summary> {
    let run = Run::new(plan, cache, options, reporter)?;
    let result = run.all();
    // What was learnt holds, however the run ended.
    let saved = run.save();
    result?;
    saved?;
    run.finish()
}

/// A run on its way.
pub struct Run<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) cache: &'a Cache,
    pub(super) options: &'a Options,
    pub(super) reporter: RefCell<&'a mut dyn Reporter>,
    pub(super) past: Past<'a>,
    /// The lock file, where it must not change.
    pub(super) locked: Option<Held>,
    pub(super) keys: RefCell<Keys>,
    pub(super) gpus: Rc<Gpus>,
    pub(super) session: RefCell<Session>,
    pub(super) done: RefCell<Done>,
    pub(super) notes: RefCell<BTreeMap<usize, Note>>,
    /// Stages that ran, or have another key than last time.
    pub(super) news: RefCell<HashSet<&'a str>>,
    /// Stages that did not run because one that they need failed → that stage.
    pub(super) lost: RefCell<BTreeMap<usize, usize>>,
    /// The commit that the pipeline file's folder is at.
    pub(super) commit: RefCell<Option<Asked>>,
    /// When stages began that run now.
    pub(super) begun: RefCell<BTreeMap<usize, Instant>>,
    /// What stages took before, by position, once that was asked for.
    pub(super) durations: OnceCell<Option<BTreeMap<usize, f64>>>,
    /// Scratch folders that can be used again.
    pub(super) spares: RefCell<Spares>,
    pub(super) summary: RefCell<Summary>,
    pub(super) start: Instant,
    pub(super) started: Timestamp,
    /// Names the run.
    pub(super) id: String,
    pub(super) forced: BTreeSet<usize>,
}

/// What became of a stage.
#[derive(Clone, Debug)]
pub struct Note {
    /// Digest of its key.
    pub key: Digest,
    /// How it ended.
    pub status: Status,
    /// Why it ran.
    pub reason: String,
    /// All that changed since its last success, where it ran.
    pub changes: Vec<Change>,
    /// Digest of the key of its last success, where it ran.
    pub before: Option<Digest>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Wall time.
    pub seconds: f64,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was up to date.
    Cached,
    /// Its result was taken from the remote cache.
    Pulled,
    /// It ran and succeeded.
    Ran,
    /// It ran and failed.
    Failed,
    /// It ran when the run was ended, by a signal or by an error of another kind.
    Interrupted,
}

impl Status {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::Cached, Self::Pulled, Self::Ran, Self::Failed, Self::Interrupted];

    /// Whether the stage came to a result.
    pub fn has_result(self) -> bool {
        !matches!(self, Self::Failed | Self::Interrupted)
    }
}

/// A stage that is not up to date.
#[derive(Clone, Debug)]
pub struct Needed {
    /// Its position.
    pub stage: usize,
    /// Its key.
    pub key: ActionKey,
    /// The key's digest.
    pub digest: Digest,
    /// Why it must run.
    pub why: String,
    /// All that changed since its last success.
    pub changes: Vec<Change>,
    /// Digest of the key of its last success.
    pub before: Option<Digest>,
    /// Whether it runs even if it is up to date.
    pub forced: bool,
    /// What it needs and is not here: so it cannot run here, and its key is not whole.
    pub lack: Option<Arc<RunError>>,
}

impl Note {
    /// Of a stage that ran.
    fn of(needed: &Needed, status: Status, failure: Option<Failure>, seconds: f64) -> Self {
        let Needed { digest: key, why: reason, changes, before, .. } = needed.clone();
        Self { key, status, reason, changes, before, failure, seconds }
    }
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a Plan<'a>,
        cache: &'a Cache,
        options: &'a Options,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Self> {
        let (start, started) = (Instant::now(), Timestamp::now());
        let id = format!("{}-{}", started.strftime("%Y%m%d-%H%M%S"), files::process());
        let session = cache.enter(&id)?;
        let ended = cache.sweep()?;
        if !ended.is_empty() {
            let pids: Vec<String> = ended.iter().map(i32::to_string).collect();
            let what = "processes of a killed run were still there and were ended";
            let message = format!("{what}: {}", pids.join(", "));
            reporter.event(&Event::Warning { stage: None, message: &message });
        }
        let pipeline = plan.pipeline();
        if options.locked != Locked::No && pipeline.sweep.is_some() {
            return Err(RunError::LockedSweep);
        }
        let holds = options.review.as_ref().is_some_and(|review| review.guards != Guarding::No);
        if let Some(sweep) =
            pipeline.sweep.as_ref().filter(|_| holds && !pipeline.guards.is_empty())
        {
            return Err(RunError::GuardedSweep { points: sweep.points.len() });
        }
        // Before anything runs in vain.
        let past = Past::new(cache, pipeline);
        if pipeline.sweep.is_none() && !options.no_lock {
            past.check_lock()?;
        }
        let mut forced = BTreeSet::new();
        for name in &options.force {
            forced.extend(plan.named(name)?);
        }
        if let Some(part) = options.part.as_ref().filter(|part| part.forced) {
            forced.extend(plan.order().filter(|index| plan.stage(*index).id == part.stage));
        }
        let locked = Held::new(plan, options.locked)?;
        let gpus = Rc::new(Gpus::of(options, plan));
        Ok(Self {
            plan,
            cache,
            options,
            reporter: RefCell::new(reporter),
            past,
            locked,
            keys: RefCell::new(Keys::new(cache, plan, Rc::clone(&gpus))),
            gpus,
            session: RefCell::new(session),
            done: RefCell::default(),
            notes: RefCell::default(),
            news: RefCell::default(),
            lost: RefCell::default(),
            commit: RefCell::default(),
            begun: RefCell::default(),
            durations: OnceCell::new(),
            spares: RefCell::default(),
            summary: RefCell::default(),
            start,
            started,
            id,
            forced,
        })
    }

    /// Finds what is up to date, and leaves the rest to the executor.
    fn all(&self) -> Result<()> {
        self.check_part()?;
        let mut scheduler = Scheduler::new(self.plan);
        let (pipeline, stages) = (&self.plan.pipeline().name, scheduler.left());
        self.tell(&Event::Planned { pipeline, stages });
        let mut needed = Vec::new();
        while let Some(index) = scheduler.take() {
            match self.look(index)? {
                None => scheduler.succeeded(index),
                Some(stage) => needed.push(stage),
            }
        }
        if needed.is_empty() {
            // What a killed run left may not have reached the disk.
            return Ok(self.cache.flush()?);
        }
        self.keys.borrow_mut().save()?;
        self.check_gpus()?;
        self.check_lacks()?;
        {
            let used: Vec<Digest> = self.notes.borrow().values().map(|note| note.key).collect();
            self.session.borrow_mut().settle(used.iter())?;
        }
        if self.options.part.is_none() {
            self.commit.replace(Some(Asked::about(&self.plan.pipeline().folder)));
        }
        let executor: Box<dyn Executor> = match &self.options.executor {
            ExecutorChoice::Local => Box::new(Local::new(self.options, &self.gpus)),
            ExecutorChoice::Slurm(options) => Box::new(Cluster::new(options.clone())),
        };
        let result = executor.execute(self, Work { scheduler, needed });
        // What cannot be removed now is removed by the next run.
        let _ = self.cache.sweep_spent();
        result.and(self.cache.flush().map_err(RunError::from))
    }

    /// Tells of something.
    pub fn tell(&self, event: &Event) {
        self.reporter.borrow_mut().event(event);
    }

    /// The stage at a position.
    pub fn stage(&self, index: usize) -> &'a StageCell {
        self.plan.stage(index)
    }

    /// Looks a stage up whose producers are all up to date: `None` if it is up to date too.
    pub fn look(&self, index: usize) -> Result<Option<Needed>> {
        if self.handed(index)? {
            return Ok(None);
        }
        let (pipeline, cell) = (self.plan.pipeline(), self.stage(index));
        let (key, untold) = self.keys.borrow_mut().key(pipeline, cell, &self.done.borrow())?;
        let digest = key.digest();
        let forced = self.forced.contains(&index);
        if let Some(lack) = self.lack_of(cell, untold)? {
            if !self.runs_here() {
                self.hold_to_lock(cell, &key, &digest)?;
            }
            let (changes, before, why) = (Vec::new(), None, lack.to_string());
            let lack = Some(Arc::new(lack));
            return Ok(Some(Needed {
                stage: index,
                key,
                digest,
                why,
                changes,
                before,
                forced,
                lack,
            }));
        }
        let _hold = self.session.borrow().hold()?;
        let found = self.cache.lookup_key(&key, &digest)?;
        let mut why = String::new();
        let (mut changes, mut before) = (Vec::new(), None);
        if forced || !matches!(found, Lookup::Hit(_)) {
            let known = self.past.of(cell)?;
            if let Some(known) = &known {
                let inputs = &self.keys.borrow().inputs;
                changes = reason::changes_with_files(inputs, pipeline, cell, &key, &known.key);
                before = Some(known.key.digest());
            }
            why = match &found {
                _ if forced => "forced".to_owned(),
                Lookup::Damaged(what) => format!("record damaged: {what}"),
                _ => reason::explain(&changes, known.as_ref()),
            };
        }
        self.hold_to_lock(cell, &key, &digest)?;
        if let (Lookup::Hit(record), false) = (found, forced) {
            self.session.borrow_mut().pin(&digest)?;
            self.cached(index, digest, *record);
            return Ok(None);
        }
        let lack = None;
        Ok(Some(Needed { stage: index, key, digest, why, changes, before, forced, lack }))
    }

    /// Under `--locked`, the key must be the one in the lock file, or differ by the machine.
    fn hold_to_lock(&self, cell: &StageCell, key: &ActionKey, digest: &Digest) -> Result<()> {
        let Some(held) = &self.locked else { return Ok(()) };
        if let Some(note) = held.hold(self.plan.pipeline(), cell, key, digest)? {
            self.tell(&Event::Warning { stage: Some(&cell.id), message: &note });
        }
        Ok(())
    }

    /// Takes note that a stage is up to date.
    pub fn cached(&self, index: usize, key: Digest, record: ActionRecord) {
        let cell = self.stage(index);
        self.hand_over(index, &key);
        self.summary.borrow_mut().cached += 1;
        self.tell(&Event::Cached { stage: &cell.id, warnings: &record.warnings });
        let (status, reason, changes) = (Status::Cached, String::new(), Vec::new());
        let (before, failure, seconds) = (None, None, 0.0);
        self.note(index, Note { key, status, reason, changes, before, failure, seconds });
        self.done.borrow_mut().insert(cell.id.clone(), record);
    }

    /// Takes note that a stage's result was taken from the remote cache.
    pub fn pulled(&self, needed: &Needed, record: ActionRecord, seconds: f64) {
        let cell = self.stage(needed.stage);
        self.hand_over(needed.stage, &needed.digest);
        self.summary.borrow_mut().pulled += 1;
        let bytes = record.outputs.values().map(|output| output.bytes).sum();
        let warnings = &record.warnings;
        self.tell(&Event::Pulled { stage: &cell.id, seconds, bytes, warnings });
        self.note(needed.stage, Note::of(needed, Status::Pulled, None, seconds));
        self.done.borrow_mut().insert(cell.id.clone(), record);
    }

    /// Takes note that a stage ran and succeeded.
    pub fn ran(&self, needed: &Needed, record: ActionRecord, seconds: f64, unchanged: bool) {
        let cell = self.stage(needed.stage);
        self.hand_over(needed.stage, &needed.digest);
        self.summary.borrow_mut().ran += 1;
        self.tell(&Event::Finished { stage: &cell.id, seconds, unchanged });
        self.note(needed.stage, Note::of(needed, Status::Ran, None, seconds));
        self.done.borrow_mut().insert(cell.id.clone(), record);
    }

    /// Takes note that a stage failed for good.
    pub fn failed(&self, needed: &Needed, seconds: f64, failed: &StageFailure) {
        {
            let mut summary = self.summary.borrow_mut();
            summary.failed += 1;
            summary.blame.get_or_insert(failed.failure.blame);
        }
        let failure = Some(failed.failure.clone());
        self.note(needed.stage, Note::of(needed, Status::Failed, failure, seconds));
        self.tell(&Event::Failed {
            stage: &self.stage(needed.stage).id,
            seconds,
            blame: failed.failure.blame,
            message: &failed.failure.message,
            help: failed.failure.help.as_deref(),
            tail: &failed.tail,
            log: failed.log.as_deref(),
        });
    }

    /// Takes note that a stage did not come to its end, if it had begun.
    pub fn interrupted(&self, needed: &Needed) {
        let begun = self.begun.borrow().get(&needed.stage).copied();
        if let Some(begun) = begun {
            let seconds = begun.elapsed().as_secs_f64();
            self.note(needed.stage, Note::of(needed, Status::Interrupted, None, seconds));
        }
    }

    /// Takes note that stages cannot run because one that they need failed.
    pub fn lost(&self, lost: &[usize], failed: usize) {
        for index in lost {
            self.summary.borrow_mut().skipped += 1;
            self.lost.borrow_mut().insert(*index, failed);
            let (stage, failed) = (&self.stage(*index).id, &self.stage(failed).id);
            self.tell(&Event::Skipped { stage, failed });
        }
    }

    fn note(&self, index: usize, note: Note) {
        let cell = self.stage(index);
        let same = note.status == Status::Cached
            && self.cache.last_digest(&label(self.plan.pipeline(), cell)) == Some(note.key);
        if !same {
            self.news.borrow_mut().insert(&cell.id);
        }
        self.notes.borrow_mut().insert(index, note);
    }

    /// Where a stage's lines go.
    pub fn log(&self, cell: &StageCell) -> PathBuf {
        history::log(self.cache, &self.id, &cell.id)
    }

    /// Writes what was learnt of files, libraries and the use of records, and what the run did.
    fn save(&self) -> Result<()> {
        self.keys.borrow_mut().save()?;
        if self.options.part.is_none() {
            self.write_history()?;
        }
        let notes = self.notes.borrow();
        let used =
            notes.iter().filter(|(_, note)| matches!(note.status, Status::Cached | Status::Pulled));
        let used: Vec<(String, Digest)> = used
            .map(|(index, note)| (label(self.plan.pipeline(), self.stage(*index)), note.key))
            .collect();
        Ok(self.cache.used(used.iter().map(|(label, key)| (label.as_str(), *key)))?)
    }
}
