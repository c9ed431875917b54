//! The run of a plan: look up, or run and record, stage by stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::attempt::{Attempt, Scratch, Worked};
use super::error::{Result, RunError};
use super::event::{Event, Reporter, Summary};
use super::failure::{StageFailure, failure};
use super::keys::{Done, Keys};
use super::machinery::Machinery;
use super::scheduler::Scheduler;
use super::{Options, host, reason};
use crate::cache::{
    ActionKey, ActionRecord, Cache, CacheError, Claim, Claimed, Digest, LastKeys, LockFile,
    LockedStage, Lookup, StoredOutput, files, plain_name,
};
use crate::config::StageCell;
use crate::plan::Plan;
use crate::task::Blame;

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
    let _use = cache.share()?;
    cache.sweep()?;
    let mut run = Run::new(plan, cache, options, reporter)?;
    let result = run.all();
    // What was learnt holds, however the run ended.
    let saved = run.keys.save().and_then(|()| Ok(run.last.save()?));
    result?;
    saved?;
    run.finish()
}

/// A run on its way.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) cache: &'a Cache,
    pub(super) options: &'a Options,
    pub(super) reporter: &'a mut dyn Reporter,
    forced: BTreeSet<usize>,
    keys: Keys,
    last: LastKeys,
    pub(super) lock: LockFile,
    pub(super) done: Done,
    pub(super) summary: Summary,
    pub(super) start: Instant,
    logs: PathBuf,
    machinery: Machinery,
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a Plan<'a>,
        cache: &'a Cache,
        options: &'a Options,
        reporter: &'a mut dyn Reporter,
    ) -> Result<Self> {
        let start = Instant::now();
        let pipeline = plan.pipeline();
        let mut forced = BTreeSet::new();
        for name in &options.force {
            forced.extend(plan.named(name)?);
        }
        // A lock file that is damaged is written anew, unless it must not change.
        let lock = match LockFile::read(&LockFile::path(&pipeline.file)) {
            Err(error @ CacheError::LockFile { .. }) if options.locked => return Err(error.into()),
            Err(CacheError::LockFile { .. }) => LockFile::default(),
            read => read?.unwrap_or_default(),
        };
        let time = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        Ok(Self {
            plan,
            cache,
            options,
            reporter,
            forced,
            keys: Keys::new(cache, plan),
            last: LastKeys::load(cache, &pipeline.name),
            lock,
            done: Done::new(),
            summary: Summary::default(),
            start,
            logs: cache.place("logs").join(format!("{time}-{}", std::process::id())),
            machinery: Machinery::default(),
        })
    }

    fn all(&mut self) -> Result<()> {
        let mut scheduler = Scheduler::new(self.plan);
        let stages = scheduler.left();
        self.reporter.event(&Event::Planned { pipeline: &self.plan.pipeline().name, stages });
        while let Some(index) = scheduler.take() {
            if self.stage(index)? {
                scheduler.succeeded(index);
                continue;
            }
            let failed = &self.plan.stage(index).id;
            for lost in scheduler.failed(index) {
                self.summary.skipped += 1;
                let stage = &self.plan.stage(lost).id;
                self.reporter.event(&Event::Skipped { stage, failed });
            }
            if !self.options.keep_going {
                break;
            }
        }
        self.summary.skipped += scheduler.left();
        Ok(())
    }

    /// Brings a stage up to date; `false` if it failed.
    fn stage(&mut self, index: usize) -> Result<bool> {
        let (pipeline, cell) = (self.plan.pipeline(), self.plan.stage(index));
        let key = self.keys.key(pipeline, cell, &self.done)?;
        let digest = key.digest();
        let forced = self.forced.contains(&index);
        let found = self.cache.lookup(&digest)?;
        let why = match &found {
            _ if forced => "forced".to_owned(),
            Lookup::Hit(_) => String::new(),
            Lookup::Damaged(what) => format!("record damaged: {what}"),
            Lookup::Miss => reason::explain(pipeline, cell, &key, self.last.get(&cell.id)),
        };
        if self.options.locked {
            self.hold_to_lock(cell, &digest, &why)?;
        }
        if let (Lookup::Hit(record), false) = (found, forced) {
            self.cached(cell, &key, *record)?;
            return Ok(true);
        }
        let Some(claim) = self.claim(cell, &digest)? else { return Ok(true) };
        // Another run may have done it while this one waited.
        if let (Lookup::Hit(record), false) = (self.cache.lookup(&digest)?, forced) {
            self.cached(cell, &key, *record)?;
            return Ok(true);
        }
        self.execute(cell, &key, &claim, &why, forced)
    }

    /// Under `--locked`, the key must be the one in the lock file.
    fn hold_to_lock(&self, cell: &StageCell, digest: &Digest, why: &str) -> Result<()> {
        let what = match self.lock.stages.get(&cell.id) {
            Some(locked) if locked.key == *digest => return Ok(()),
            Some(_) if why.is_empty() => format!("stage {} has another key", cell.id),
            Some(_) => format!("stage {} has another key ({why})", cell.id),
            None => format!("stage {} is not in it", cell.id),
        };
        Err(RunError::Locked { path: LockFile::path(&self.plan.pipeline().file), what })
    }

    fn cached(&mut self, cell: &StageCell, key: &ActionKey, record: ActionRecord) -> Result<()> {
        self.cache.touch(&key.digest())?;
        self.last.set(&cell.id, key);
        self.summary.cached += 1;
        self.reporter.event(&Event::Cached { stage: &cell.id, warnings: &record.warnings });
        self.done.insert(cell.id.clone(), record);
        Ok(())
    }

    /// The right to run the stage, after waiting for another run that has it.
    fn claim(&mut self, cell: &StageCell, key: &Digest) -> Result<Option<Claim>> {
        let mut told = false;
        loop {
            match self.cache.claim(key)? {
                Claimed::Ours(claim) => return Ok(Some(claim)),
                Claimed::Theirs(pid) => {
                    if !std::mem::replace(&mut told, true) {
                        self.reporter.event(&Event::Waiting { stage: &cell.id, pid });
                    }
                }
                Claimed::Survivors(pids) => {
                    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
                    let message = format!(
                        "processes of a killed run still worked on it and were ended: {}",
                        pids.join(", ")
                    );
                    self.reporter
                        .event(&Event::Warning { stage: Some(&cell.id), message: &message });
                }
            }
            let (runtime, signals) = self.machinery.get()?;
            let asked = async {
                tokio::select! {
                    () = signals.next() => true,
                    () = tokio::time::sleep(Duration::from_millis(50)) => false,
                }
            };
            if runtime.block_on(asked) {
                return Err(RunError::Interrupted);
            }
        }
    }

    /// Runs a stage and records what came of it; `false` if it failed.
    fn execute(
        &mut self,
        cell: &StageCell,
        key: &ActionKey,
        claim: &Claim,
        why: &str,
        forced: bool,
    ) -> Result<bool> {
        let digest = key.digest();
        self.reporter.event(&Event::Started { stage: &cell.id, reason: why });
        let (start, started) = (Instant::now(), Timestamp::now());
        if forced {
            files::remove(&self.cache.place("checkpoints").join(digest.hex()))?;
        }
        let scratch = Scratch::new(self.cache, &digest, cell, &self.done)?;
        let result = {
            let mut attempt = Attempt {
                cache: self.cache,
                pipeline: self.plan.pipeline(),
                cell,
                log: self.logs.join(format!("{}.log", plain_name(&cell.id))),
                reporter: self.reporter,
            };
            let (runtime, signals) = self.machinery.get()?;
            runtime.block_on(attempt.run(claim, &scratch, &self.done, signals))
        };
        let changed = self.keys.inputs.changed(self.plan.pipeline(), cell)?;
        if !changed.is_empty() {
            // They may hold what came of either state of the files.
            files::remove(&scratch.checkpoints)?;
        }
        if !changed.is_empty() && !matches!(result, Err(RunError::Interrupted)) {
            return Err(RunError::InputChanged { stage: cell.id.clone(), paths: changed });
        }
        let stored = match result? {
            Ok(worked) => self.record(cell, key, &scratch, worked, started, start.elapsed())?,
            Err(failure) => Err(failure),
        };
        let seconds = start.elapsed().as_secs_f64();
        let record = match stored {
            Ok(record) => record,
            Err(failure) => {
                self.failed(cell, seconds, &failure);
                return Ok(false);
            }
        };
        files::remove(&scratch.checkpoints)?;
        let unchanged = self.last_outputs(cell) == Some(LockedStage::from(&record).outputs);
        self.last.set(&cell.id, key);
        self.last.save()?;
        self.keys.save()?;
        self.summary.ran += 1;
        self.reporter.event(&Event::Finished { stage: &cell.id, seconds, unchanged });
        self.done.insert(cell.id.clone(), record);
        Ok(true)
    }

    /// The outputs that the stage had last.
    fn last_outputs(&self, cell: &StageCell) -> Option<BTreeMap<String, Digest>> {
        let key = self.last.get(&cell.id)?.digest();
        match self.cache.lookup(&key).ok()? {
            Lookup::Hit(record) => Some(LockedStage::from(&*record).outputs),
            Lookup::Miss | Lookup::Damaged(_) => None,
        }
    }

    fn failed(&mut self, cell: &StageCell, seconds: f64, failed: &StageFailure) {
        self.summary.failed += 1;
        self.summary.blame.get_or_insert(failed.failure.blame);
        self.reporter.event(&Event::Failed {
            stage: &cell.id,
            seconds,
            blame: failed.failure.blame,
            message: &failed.failure.message,
            help: failed.failure.help.as_deref(),
            tail: &failed.tail,
            log: failed.log.as_deref(),
        });
    }

    /// Moves the outputs into the store and publishes the record.
    fn record(
        &self,
        cell: &StageCell,
        key: &ActionKey,
        scratch: &Scratch,
        worked: Worked,
        started: Timestamp,
        took: Duration,
    ) -> Result<std::result::Result<ActionRecord, StageFailure>> {
        let mut outputs = BTreeMap::new();
        for output in cell.stage.outputs() {
            let stored = match self.cache.store(&scratch.out().join(&output.file)) {
                Ok(stored) => stored,
                // What a stage wrote is its own fault, not the cache's.
                Err(error @ (CacheError::NotStorable { .. } | CacheError::StillWritten { .. })) => {
                    let message = format!("output `{}`: {error}", output.port);
                    let failure = failure(Blame::User, message, None);
                    return Ok(Err(StageFailure { failure, tail: Vec::new(), log: None }));
                }
                Err(error) => return Err(error.into()),
            };
            outputs.insert(
                output.port,
                StoredOutput {
                    digest: stored.digest,
                    kind: output.kind,
                    file: output.file,
                    directory: stored.directory,
                    bytes: stored.bytes,
                },
            );
        }
        let record = ActionRecord {
            key: key.clone(),
            outputs,
            metrics: worked.metrics,
            warnings: worked.warnings,
            started: started.to_string(),
            seconds: took.as_secs_f64(),
            stage: format!("{}/{}", self.plan.pipeline().name, cell.id),
            host: host::name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.cache.record(&record)?;
        Ok(Ok(record))
    }
}
