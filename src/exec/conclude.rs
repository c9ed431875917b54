//! The end of a run: lock file, readable names, tables, summary.

use std::path::Path;

use super::error::Result;
use super::event::{Event, Summary};
use super::review::{Guarding, Reviewed};
use super::runner::Run;
use super::{report_stage, sweep, view};
use crate::cache::{Digest, LockFile, LockedStage};
use crate::stages::contract::Runs;

impl Run<'_> {
    /// Lock file, view, tables and summary.
    pub(super) fn finish(self) -> Result<Summary> {
        let pipeline = self.plan.pipeline();
        let done = self.done.borrow();
        let results = self.results();
        // What a job shows is shown by the run that submitted it.
        if self.options.part.is_none() {
            view::update(self.cache, &pipeline.name, &done, &results)?;
        }
        let lock_path = pipeline.lock_file();
        let mut summary = self.summary.borrow_mut();
        let reviewed = self.review();
        if let Some(reviewed) = &reviewed {
            summary.broken_guards = reviewed.broken();
        }
        // A lock file says what a pipeline is; a sweep is many.
        if summary.failed == 0 && pipeline.sweep.is_none() && !self.options.no_lock {
            if let Some(held) = &self.locked {
                held.conclude(&self.new_lock())?;
                self.cache.register(&lock_path, None)?;
            } else if !reviewed.as_ref().is_none_or(Reviewed::accepts) {
                self.cache.register(&lock_path, None)?;
            } else if lock_path.exists() && !self.may_write_lock() {
                // What it names is kept all the same.
                self.cache.register(&lock_path, None)?;
                let differs = self.new_lock().stages != self.past.lock().stages;
                summary.lock_file_kept = differs.then(|| lock_path.clone());
            } else if self.write_lock(&lock_path, &results)? {
                summary.lock_file = Some(lock_path.clone());
            }
        }
        for index in self.plan.order() {
            let cell = self.plan.stage(index);
            if cell.kind.runs == Runs::Runner
                && let Some(report) = report_stage::read(self.cache, &done, cell)
            {
                self.tell(&Event::Report { stage: &cell.id, report: &report });
            }
        }
        if let Some(table) = sweep::table(self.plan, &done, &self.options.best) {
            sweep::write(self.cache, &pipeline.name, &table)?;
            self.tell(&Event::Sweep { table: &table });
        }
        if let Some(reviewed) = &reviewed {
            reviewed.tell(&self);
        }
        summary.artifacts = view::folder(self.cache, &pipeline.name);
        summary.seconds = self.start.elapsed().as_secs_f64();
        self.tell(&Event::Summary(&summary));
        Ok(summary.clone())
    }

    /// Whether the lock file that is there is of runs like this one. The file as it stands has the first right to it; what `--set` changes is a trial,
    /// unless the lock file came from a run that changed the same keys (where the data lie, on each machine), or its figures are to be the accepted ones.
    fn may_write_lock(&self) -> bool {
        let set = self.plan.pipeline().set();
        let review = self.options.review.as_ref();
        let accepts = review.is_some_and(|review| review.guards == Guarding::Accept);
        set.is_empty() || accepts || self.past.lock().set == set
    }

    /// Writes the lock file if that changes it; says whether it did. What was made of the same
    /// results the last time, and not touched since, is not made again.
    fn write_lock(&self, path: &Path, results: &Digest) -> Result<bool> {
        if self.cache.is_registered(path, results) {
            return Ok(false);
        }
        let changed = self.new_lock().write(path)?;
        self.cache.register(path, Some(results))?;
        Ok(changed)
    }

    /// Digest of the keys and outputs of all stages, where all were done.
    fn results(&self) -> Digest {
        let (done, notes) = (self.done.borrow(), self.notes.borrow());
        let mut text = String::new();
        for (index, cell) in self.plan.pipeline().stages.iter().enumerate() {
            text.push_str(&cell.id);
            text.push('\n');
            let (Some(record), Some(note)) = (done.get(&cell.id), notes.get(&index)) else {
                // Its part of the lock file is taken over from the file itself.
                text.push_str("?\n");
                continue;
            };
            text.push_str(&note.key.hex());
            for output in record.outputs.values() {
                text.push_str(&output.digest.hex());
            }
        }
        Digest::of(text.as_bytes())
    }

    /// The lock file after this run: what was not selected stays, what is no longer there goes.
    pub(super) fn new_lock(&self) -> LockFile {
        let past = self.past.lock();
        let mut lock = LockFile { set: self.plan.pipeline().set(), ..LockFile::default() };
        let (done, notes) = (self.done.borrow(), self.notes.borrow());
        for (index, cell) in self.plan.pipeline().stages.iter().enumerate() {
            let stage = match (done.get(&cell.id), notes.get(&index)) {
                (Some(record), Some(note)) => Some(LockedStage::new(note.key, record)),
                // Of another configuration there is nothing to take over.
                _ => past.stages.get(&cell.id).filter(|_| past.set == lock.set).cloned(),
            };
            lock.stages.extend(stage.map(|stage| (cell.id.clone(), stage)));
        }
        lock
    }
}
