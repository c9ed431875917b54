//! What each run did: `runs/RUN.json` in the cache.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::host;
use super::runner::{Run, Status};
use crate::cache::{Cache, Digest, files};

/// What a run did. A run that found all up to date, with the same keys as before, leaves none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Names the run: its time, UTC, and its process.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file.
    pub file: PathBuf,
    /// The command line.
    pub command: Vec<String>,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Wall time, seconds.
    pub seconds: f64,
    /// The machine's name.
    pub host: String,
    /// Version of qpipe.
    pub version: String,
    /// Stage id → what became of it. Stages that were not reached are left out.
    pub stages: BTreeMap<String, StageRun>,
}

/// What became of a stage in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRun {
    /// Digest of its key; its record holds the rest.
    pub key: Digest,
    /// How it ended.
    pub status: Status,
    /// Why it ran; empty if it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Wall time, seconds.
    pub seconds: f64,
}

impl Run<'_> {
    /// Writes what this run did, if it did anything.
    pub(super) fn write_history(&self) -> Result<()> {
        let notes = self.notes.borrow();
        if self.news.borrow().is_empty() {
            return Ok(());
        }
        let stages = notes.iter().map(|(index, note)| {
            let stage = StageRun {
                key: note.key,
                status: note.status,
                reason: note.reason.clone(),
                seconds: note.seconds,
            };
            (self.stage(*index).id.clone(), stage)
        });
        let record = RunRecord {
            id: self.id.clone(),
            pipeline: self.plan.pipeline().name.clone(),
            file: self.plan.pipeline().file.clone(),
            command: std::env::args().collect(),
            started: self.started.to_string(),
            seconds: self.start.elapsed().as_secs_f64(),
            host: host::name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stages: stages.collect(),
        };
        let mut json = serde_json::to_vec(&record).expect("a record of a run serialises to JSON");
        json.push(b'\n');
        let path = self.cache.place("runs").join(format!("{}.json", self.id));
        Ok(files::publish_unflushed(&path, &json)?)
    }
}

/// The runs that a cache remembers, oldest first; what cannot be read is left out.
///
/// # Errors
///
/// A folder that cannot be listed.
pub fn runs(cache: &Cache) -> Result<Vec<RunRecord>> {
    let mut runs = Vec::new();
    for path in files::list(&cache.place("runs"))? {
        let bytes = files::read(&path)?.unwrap_or_default();
        runs.extend(serde_json::from_slice::<RunRecord>(&bytes).ok());
    }
    runs.sort_by(|a, b| a.started.cmp(&b.started));
    Ok(runs)
}
