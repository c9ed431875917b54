//! In what two runs differ: configurations, inputs, facts, figures, artifacts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::Result;
use super::history::RunRecord;
use super::reason::{self, Change};
use crate::cache::{ActionKey, Cache, Digest, LockFile, LockedStage};
use crate::config::Pipeline;

/// What the stages of a run came to, or those of a lock file.
#[derive(Clone, Debug)]
pub struct Snapshot {
    name: String,
    stages: BTreeMap<String, State>,
}

/// What a stage came to.
#[derive(Clone, Debug)]
struct State {
    digest: Digest,
    failed: bool,
    /// What its record says, where that is still known.
    known: Option<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    key: ActionKey,
    metrics: BTreeMap<String, f64>,
    outputs: BTreeMap<String, Artifact>,
}

/// An output of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Digest of its content.
    pub digest: Digest,
    /// Its size, bytes; a lock file does not tell it.
    pub bytes: Option<u64>,
}

impl Snapshot {
    /// Of a run.
    ///
    /// # Errors
    ///
    /// A cache that cannot be read.
    pub fn of_run(cache: &Cache, run: &RunRecord) -> Result<Self> {
        let mut stages = BTreeMap::new();
        for (id, stage) in &run.stages {
            let failed = !stage.status.has_result();
            let record = if failed { None } else { cache.record_of(&stage.key)? };
            let known = record.map(|record| Known {
                key: record.key.clone(),
                metrics: LockedStage::new(stage.key, &record).metrics,
                outputs: record
                    .outputs
                    .iter()
                    .map(|(port, output)| {
                        let (digest, bytes) = (output.digest, Some(output.bytes));
                        (port.clone(), Artifact { digest, bytes })
                    })
                    .collect(),
            });
            stages.insert(id.clone(), State { digest: stage.key, failed, known });
        }
        Ok(Self { name: format!("run {}", run.id), stages })
    }

    /// Of a lock file.
    pub fn of_lock(lock: &LockFile) -> Self {
        let state = |stage: &LockedStage| State {
            digest: stage.key,
            failed: false,
            known: stage.action_key().map(|key| Known {
                key,
                metrics: stage.metrics.clone(),
                outputs: stage
                    .outputs
                    .iter()
                    .map(|(port, digest)| (port.clone(), Artifact { digest: *digest, bytes: None }))
                    .collect(),
            }),
        };
        let stages = lock.stages.iter().map(|(id, stage)| (id.clone(), state(stage)));
        Self { name: "the lock file".to_owned(), stages: stages.collect() }
    }
}

/// In what two runs differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// What is compared.
    pub from: String,
    /// With what.
    pub to: String,
    /// Stages that are in both, alike or not.
    pub common: usize,
    /// Stages that differ, by name.
    pub stages: Vec<StageDiff>,
}

/// In what a stage differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageDiff {
    /// Its id.
    pub stage: String,
    /// How it stands on both sides.
    pub presence: Presence,
    /// Configuration, inputs, seed, facts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricDiff>,
    /// Artifacts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactDiff>,
}

/// How a stage stands on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Both sides have a result.
    Both,
    /// Only the first side has the stage.
    OnlyFrom,
    /// Only the second side has it.
    OnlyTo,
    /// It failed on the first side.
    FailedFrom,
    /// It failed on the second side.
    FailedTo,
    /// The keys differ, but a record is gone from the cache.
    Forgotten,
}

/// A figure that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricDiff {
    /// Its dotted name.
    pub name: String,
    /// On the first side.
    pub old: Option<f64>,
    /// On the second side.
    pub new: Option<f64>,
    /// `new - old`.
    pub difference: Option<f64>,
}

/// An artifact that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArtifactDiff {
    /// The port.
    pub port: String,
    /// On the first side.
    pub old: Option<Artifact>,
    /// On the second side.
    pub new: Option<Artifact>,
}

/// In what `to` differs from `from`.
pub fn diff(pipeline: &Pipeline, from: &Snapshot, to: &Snapshot) -> Diff {
    let mut ids: Vec<&String> = from.stages.keys().chain(to.stages.keys()).collect();
    ids.sort();
    ids.dedup();
    let (mut common, mut stages) = (0, Vec::new());
    for id in ids {
        let (old, new) = (from.stages.get(id), to.stages.get(id));
        common += usize::from(old.is_some() && new.is_some());
        stages.extend(compare(pipeline, id, old, new));
    }
    Diff { from: from.name.clone(), to: to.name.clone(), common, stages }
}

fn compare(
    pipeline: &Pipeline,
    id: &str,
    old: Option<&State>,
    new: Option<&State>,
) -> Option<StageDiff> {
    let mut found = StageDiff {
        stage: id.to_owned(),
        presence: Presence::Both,
        changes: Vec::new(),
        metrics: Vec::new(),
        artifacts: Vec::new(),
    };
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (old, _) => {
            found.presence = if old.is_some() { Presence::OnlyFrom } else { Presence::OnlyTo };
            return Some(found);
        }
    };
    match (&old.known, &new.known) {
        _ if old.failed && new.failed && old.digest == new.digest => return None,
        _ if new.failed => found.presence = Presence::FailedTo,
        _ if old.failed => found.presence = Presence::FailedFrom,
        (Some(old), Some(new)) => {
            let cell = pipeline.stages.iter().find(|cell| cell.id == id);
            found.changes = reason::changes(pipeline, cell, &new.key, &old.key);
            found.metrics = metrics(&old.metrics, &new.metrics);
            found.artifacts = artifacts(&old.outputs, &new.outputs);
            let same = found.changes.is_empty() && found.metrics.is_empty();
            if same && found.artifacts.is_empty() {
                return None;
            }
        }
        _ if old.digest == new.digest => return None,
        _ => found.presence = Presence::Forgotten,
    }
    Some(found)
}

fn metrics(old: &BTreeMap<String, f64>, new: &BTreeMap<String, f64>) -> Vec<MetricDiff> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let differs = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let metric = |name: &String| {
        let (old, new) = (old.get(name).copied(), new.get(name).copied());
        let difference = old.zip(new).map(|(old, new)| new - old);
        MetricDiff { name: name.clone(), old, new, difference }
    };
    differs.map(metric).collect()
}

fn artifacts(
    old: &BTreeMap<String, Artifact>,
    new: &BTreeMap<String, Artifact>,
) -> Vec<ArtifactDiff> {
    let mut ports: Vec<&String> = old.keys().chain(new.keys()).collect();
    ports.sort();
    ports.dedup();
    let digest = |side: &BTreeMap<String, Artifact>, port: &String| {
        side.get(port).map(|artifact| artifact.digest)
    };
    let differs = ports.into_iter().filter(|port| digest(old, port) != digest(new, port));
    differs
        .map(|port| {
            let (old, new) = (old.get(port).copied(), new.get(port).copied());
            ArtifactDiff { port: port.clone(), old, new }
        })
        .collect()
}
