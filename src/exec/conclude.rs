//! The end of a run: lock file, readable names, tables, summary.

use super::error::{Result, RunError};
use super::event::{Event, Summary};
use super::runner::Run;
use super::{report_stage, view};
use crate::cache::{LockFile, LockedStage};
use crate::stages::contract::Runs;

impl Run<'_> {
    /// Lock file, view, tables and summary.
    pub(super) fn finish(mut self) -> Result<Summary> {
        let pipeline = self.plan.pipeline();
        view::update(self.cache, &pipeline.name, &self.done)?;
        let lock_path = LockFile::path(&pipeline.file);
        if self.summary.failed == 0 {
            let lock = self.new_lock();
            if self.options.locked {
                if let Some(what) = lock_difference(&self.lock, &lock) {
                    return Err(RunError::Locked { path: lock_path, what });
                }
            } else if lock.write(&lock_path)? {
                self.summary.lock_file = Some(lock_path.clone());
            }
            self.cache.register(&lock_path)?;
        }
        for index in self.plan.order() {
            let cell = self.plan.stage(index);
            if cell.kind.runs == Runs::Runner
                && let Some(report) = report_stage::read(self.cache, &self.done, cell)
            {
                self.reporter.event(&Event::Report { stage: &cell.id, report: &report });
            }
        }
        self.summary.artifacts = view::folder(self.cache, &pipeline.name);
        self.summary.seconds = self.start.elapsed().as_secs_f64();
        self.reporter.event(&Event::Summary(&self.summary));
        Ok(self.summary)
    }

    /// The lock file after this run: what was not selected stays, what is no longer there goes.
    fn new_lock(&self) -> LockFile {
        let mut lock = LockFile::default();
        for cell in &self.plan.pipeline().stages {
            let stage = match self.done.get(&cell.id) {
                Some(record) => Some(LockedStage::from(record)),
                None => self.lock.stages.get(&cell.id).cloned(),
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
    let differs = new.stages.iter().find(|(id, stage)| old.stages.get(*id) != Some(stage));
    differs.map(|(id, _)| format!("stage {id} came out otherwise than before"))
}
