//! The end of a run: lock file, readable names, tables, summary.

use super::error::{Result, RunError};
use super::event::{Event, Summary};
use super::runner::Run;
use super::{report_stage, sweep, view};
use crate::cache::{LockFile, LockedStage};
use crate::stages::contract::Runs;

impl Run<'_> {
    /// Lock file, view, tables and summary.
    pub(super) fn finish(self) -> Result<Summary> {
        let pipeline = self.plan.pipeline();
        let done = self.done.borrow();
        // What a job shows is shown by the run that submitted it.
        if self.options.part.is_none() {
            view::update(self.cache, &pipeline.name, &done)?;
        }
        let lock_path = LockFile::path(&pipeline.file);
        let mut summary = self.summary.borrow_mut();
        // A lock file says what a pipeline is; a sweep is many.
        if summary.failed == 0 && pipeline.sweep.is_none() && !self.options.no_lock {
            let lock = self.new_lock();
            if let Some(old) = &self.locked {
                if let Some(what) = lock_difference(old, &lock) {
                    return Err(RunError::Locked { path: lock_path, what });
                }
            } else if lock.write(&lock_path)? {
                summary.lock_file = Some(lock_path.clone());
            }
            self.cache.register(&lock_path)?;
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
        summary.artifacts = view::folder(self.cache, &pipeline.name);
        summary.seconds = self.start.elapsed().as_secs_f64();
        self.tell(&Event::Summary(&summary));
        Ok(summary.clone())
    }

    /// The lock file after this run: what was not selected stays, what is no longer there goes.
    fn new_lock(&self) -> LockFile {
        let mut lock = LockFile::default();
        let (done, notes) = (self.done.borrow(), self.notes.borrow());
        for (index, cell) in self.plan.pipeline().stages.iter().enumerate() {
            let stage = match (done.get(&cell.id), notes.get(&index)) {
                (Some(record), Some(note)) => Some(LockedStage::new(note.key, record)),
                _ => self.past.lock().stages.get(&cell.id).cloned(),
            };
            lock.stages.extend(stage.map(|stage| (cell.id.clone(), stage)));
        }
        lock
    }
}

/// The first stage in which two lock files differ.
fn lock_difference(old: &LockFile, new: &LockFile) -> Option<String> {
    let gone = old.stages.keys().find(|id| !new.stages.contains_key(*id));
    if let Some(id) = gone {
        return Some(format!("stage {id} is no longer in the pipeline"));
    }
    let same =
        |old: &LockedStage, new: &LockedStage| old.key == new.key && old.outputs == new.outputs;
    let known =
        |id: &String, new: &LockedStage| old.stages.get(id).is_some_and(|old| same(old, new));
    let differs = new.stages.iter().find(|(id, stage)| !known(id, stage));
    differs.map(|(id, _)| format!("stage {id} came out otherwise than before"))
}
