//! What is remembered of an action that succeeded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ActionKey, Digest};
use crate::stages::contract::{Metrics, PortType};
use crate::stages::inside::is_inside;

/// What is remembered of an action that succeeded. A failure is never recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The whole key, so that a miss can be explained.
    pub key: ActionKey,
    /// Outputs by port.
    pub outputs: BTreeMap<String, StoredOutput>,
    /// The stage's figures.
    pub metrics: Metrics,
    /// Warnings that it gave, shown again when it is taken from the cache.
    pub warnings: Vec<String>,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Wall time, seconds.
    pub seconds: f64,
    /// Stage id and pipeline that it ran for, for people.
    pub stage: String,
    /// The machine's name.
    pub host: String,
    /// Version of qpipe.
    pub version: String,
}

/// A record as it is read by whoever has its key already.
#[derive(Deserialize)]
pub(super) struct RecordWithoutKey {
    outputs: BTreeMap<String, StoredOutput>,
    metrics: Metrics,
    warnings: Vec<String>,
    started: String,
    seconds: f64,
    stage: String,
    host: String,
    version: String,
}

impl RecordWithoutKey {
    /// The whole record.
    pub fn with(self, key: ActionKey) -> ActionRecord {
        let Self { outputs, metrics, warnings, started, seconds, stage, host, version } = self;
        ActionRecord { key, outputs, metrics, warnings, started, seconds, stage, host, version }
    }
}

/// An output in the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    /// Digest of the file, or of the directory's manifest.
    pub digest: Digest,
    /// Its type.
    pub kind: PortType,
    /// File name under which users and stages see it.
    pub file: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes in all.
    pub bytes: u64,
}

impl StoredOutput {
    /// Whether its file name stays below the folder that it is put in.
    pub fn is_inside(&self) -> bool {
        is_inside(&self.file)
    }
}
