//! What stages came to before: here, or according to the lock file elsewhere.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::error::Result;
use crate::cache::{ActionKey, ActionRecord, Cache, Digest, LockFile};
use crate::config::{Pipeline, StageCell};

/// What is known of a stage's last success.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its key.
    pub key: ActionKey,
    /// Its record, where this cache has it; otherwise the key stands in the lock file.
    pub record: Option<ActionRecord>,
}

/// What stages came to before.
#[derive(Debug)]
pub struct Past<'a> {
    cache: &'a Cache,
    pipeline: &'a Pipeline,
    lock: OnceCell<LockFile>,
}

impl<'a> Past<'a> {
    /// For the stages of a pipeline.
    pub fn new(cache: &'a Cache, pipeline: &'a Pipeline) -> Self {
        Self { cache, pipeline, lock: OnceCell::new() }
    }

    /// The last success of a stage.
    pub fn of(&self, cell: &StageCell) -> Result<Option<Known>> {
        if let Some(record) = self.cache.last_record(&label(self.pipeline, cell))? {
            return Ok(Some(Known { key: record.key.clone(), record: Some(record) }));
        }
        let locked = self.lock().stages.get(&cell.id);
        let key = locked.and_then(|stage| stage.action_key());
        Ok(key.map(|key| Known { key, record: None }))
    }

    /// The record of the last success in this cache of the stage with an id.
    pub fn here(&self, id: &str) -> Result<Option<ActionRecord>> {
        Ok(self.cache.last_record(&format!("{}/{id}", self.pipeline.name))?)
    }

    /// Digests of the outputs of a stage's last success.
    pub fn outputs(&self, cell: &StageCell) -> Result<Option<BTreeMap<String, Digest>>> {
        if let Some(record) = self.cache.last_record(&label(self.pipeline, cell))? {
            let outputs = record.outputs.into_iter().map(|(port, output)| (port, output.digest));
            return Ok(Some(outputs.collect()));
        }
        Ok(self.lock().stages.get(&cell.id).map(|stage| stage.outputs.clone()))
    }

    /// Reads the lock file, which a run will write anew.
    ///
    /// # Errors
    /// [`LockFile::read_to_replace`]'s.
    pub fn check_lock(&self) -> Result<()> {
        let read = LockFile::read_to_replace(&self.pipeline.lock_file())?.unwrap_or_default();
        self.lock.get_or_init(|| read);
        Ok(())
    }

    /// The lock file; an empty one where there is none, or one that cannot be read.
    pub fn lock(&self) -> &LockFile {
        let path = self.pipeline.lock_file();
        self.lock.get_or_init(|| LockFile::read(&path).ok().flatten().unwrap_or_default())
    }
}

/// Under what name the cache remembers a stage.
pub fn label(pipeline: &Pipeline, cell: &StageCell) -> String {
    format!("{}/{}", pipeline.name, cell.id)
}
