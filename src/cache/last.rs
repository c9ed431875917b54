//! The keys that each stage of a pipeline had last: what a new key is explained against.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::Result;
use super::{ActionKey, Cache, files};

/// Stage id → the key of its last success.
#[derive(Debug)]
pub struct LastKeys {
    path: PathBuf,
    keys: BTreeMap<String, ActionKey>,
    dirty: bool,
}

impl LastKeys {
    /// What is known of the pipeline of that name; nothing if the file is not readable.
    pub fn load(cache: &Cache, pipeline: &str) -> Self {
        let path = cache.place("last").join(format!("{}.json", super::plain_name(pipeline)));
        let bytes = files::read(&path).ok().flatten();
        let keys = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, keys, dirty: false }
    }

    /// The stage's last key.
    pub fn get(&self, stage: &str) -> Option<&ActionKey> {
        self.keys.get(stage)
    }

    /// Remembers a success.
    pub fn set(&mut self, stage: &str, key: &ActionKey) {
        if self.keys.get(stage) != Some(key) {
            self.keys.insert(stage.to_owned(), key.clone());
            self.dirty = true;
        }
    }

    /// Writes what changed.
    pub fn save(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        let mut json = serde_json::to_vec(&self.keys).expect("keys serialise to JSON");
        json.push(b'\n');
        files::publish(&self.path, &json)
    }
}
