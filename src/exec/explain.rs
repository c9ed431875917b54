//! Why stages would run, or ran: all that changed, where it came from, what they were made from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Options;
use super::error::Result;
use super::history::{RunRecord, newest_first};
use super::keys::Done;
use super::past::Known;
use super::preview::{Action, Outlook, Preview};
use super::reason::{self, Change};
use super::runner::Status;
use crate::cache::{ActionRecord, Cache, Digest, StoredOutput};
use crate::config::{Origin, StageCell};
use crate::plan::Plan;
use crate::stages::contract::PortType;

/// Why a stage would run, or ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What a run would do with it.
    #[serde(flatten)]
    pub preview: Preview,
    /// What its changes are counted from.
    pub since: Option<Since>,
    /// The stages behind its changes: those that its input comes from, one level up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub producers: Vec<Producer>,
    /// How it was made, where it is up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// What changes are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Since {
    /// The stage's last success with this cache.
    Success,
    /// What the lock file says; this cache knows no success.
    LockFile,
}

/// A stage that another one takes something from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Producer {
    /// Its id.
    pub stage: String,
    /// What a run would do with it.
    pub action: Action,
    /// Why it would run, or ran.
    pub reason: Option<String>,
    /// The run in which it ran, where it is up to date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// How a result was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Made {
    /// The run that made it, where that is still known.
    pub run: Option<String>,
    /// Why it ran then.
    pub reason: Option<String>,
    /// All that had changed then since the success before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What it was made from.
    pub inputs: Vec<MadeFrom>,
    /// Seed of all randomness.
    pub seed: u64,
    /// Facts of the machine that matter to it.
    pub facts: BTreeMap<String, String>,
}

/// What stood at a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MadeFrom {
    /// The port.
    pub port: String,
    /// In words: `input x (from a)`, `data train`, `file src.txt`.
    pub what: String,
    /// Digest of what stood there.
    pub digest: Digest,
}

/// Why the stages at some positions would run, or ran.
///
/// # Errors
///
/// Inputs that cannot be read, a cache that cannot be read.
pub fn why(plan: &Plan, cache: &Cache, asked: &BTreeSet<usize>) -> Result<Vec<Explanation>> {
    let mut outlook = Outlook::new(plan, cache, &Options::default())?;
    let previews = outlook.all()?;
    let by_id: BTreeMap<&str, &Preview> =
        previews.iter().map(|preview| (preview.stage.as_str(), preview)).collect();
    let name = &plan.pipeline().name;
    let runs: Vec<RunRecord> = newest_first(cache)?.filter(|run| run.pipeline == *name).collect();
    let mut found = Vec::new();
    for index in plan.order().filter(|index| asked.contains(index)) {
        let cell = plan.stage(index);
        let mut preview = (*by_id[cell.id.as_str()]).clone();
        if preview.action == Action::Maybe {
            preview.changes = own_changes(&mut outlook, index)?;
        }
        let made = match (preview.action, &preview.last) {
            (Action::Cached, Some(last)) => {
                let record = cache.record_of(&last.key)?;
                record.map(|record| made(plan, cell, &record, &runs))
            }
            _ => None,
        };
        let since = match preview.action {
            Action::Cached => None,
            _ => outlook.past.of(cell)?.map(|old| match old.record {
                Some(_) => Since::Success,
                None => Since::LockFile,
            }),
        };
        let producers = producers(plan, index, &preview, &by_id, &runs);
        found.push(Explanation { preview, since, producers, made });
    }
    Ok(found)
}

/// What already differs of a stage that waits for others, as if those came out as before.
fn own_changes(outlook: &mut Outlook, index: usize) -> Result<Vec<Change>> {
    let (pipeline, cell) = (outlook.plan.pipeline(), outlook.plan.stage(index));
    let Some(old) = outlook.past.of(cell)? else { return Ok(Vec::new()) };
    let mut done = Done::new();
    for producer in outlook.plan.producers(index) {
        let producer = outlook.plan.stage(producer);
        let record = match outlook.done.get(&producer.id) {
            Some(record) => record.clone(),
            None => {
                let Some(outputs) = outlook.past.outputs(producer)? else { return Ok(Vec::new()) };
                as_before(&old, outputs)
            }
        };
        done.insert(producer.id.clone(), record);
    }
    let known = |input: &crate::config::ResolvedInput| match &input.origin {
        Origin::Stage { id, port, .. } => {
            done.get(id).is_some_and(|record| record.outputs.contains_key(port))
        }
        Origin::Data(_) | Origin::Path(_) => true,
    };
    if !cell.inputs.iter().all(known) {
        return Ok(Vec::new());
    }
    let mut key = outlook.keys.without_facts(pipeline, cell, &done)?;
    let untold = outlook.keys.add_facts(cell, &mut key)?;
    Ok(outlook.changes_but_for(cell, key, &untold, Some(&old)))
}

/// A record with nothing right but the digests of its outputs.
fn as_before(any: &Known, outputs: BTreeMap<String, Digest>) -> ActionRecord {
    let output = |digest| StoredOutput {
        digest,
        kind: PortType::File,
        file: String::new(),
        directory: false,
        bytes: 0,
    };
    ActionRecord {
        key: any.key.clone(),
        outputs: outputs.into_iter().map(|(port, digest)| (port, output(digest))).collect(),
        metrics: BTreeMap::new(),
        warnings: Vec::new(),
        started: String::new(),
        seconds: 0.0,
        stage: String::new(),
        host: String::new(),
        version: String::new(),
    }
}

/// The run that made a result, latest first.
pub(super) fn maker<'r>(runs: &'r [RunRecord], id: &str, key: &Digest) -> Option<&'r RunRecord> {
    runs.iter().find(|run| {
        let stage = run.stages.get(id);
        stage.is_some_and(|stage| stage.key == *key && stage.status == Status::Ran)
    })
}

fn made(plan: &Plan, cell: &StageCell, record: &ActionRecord, runs: &[RunRecord]) -> Made {
    let run = maker(runs, &cell.id, &record.key.digest());
    let stage = run.and_then(|run| run.stages.get(&cell.id));
    let from = |(port, digest): (&String, &Digest)| MadeFrom {
        port: port.clone(),
        what: reason::input(plan.pipeline(), Some(cell), port, ""),
        digest: *digest,
    };
    Made {
        run: run.map(|run| run.id.clone()),
        reason: stage.map(|stage| stage.reason.clone()),
        changes: stage.map(|stage| stage.changes.clone()).unwrap_or_default(),
        inputs: record.key.inputs.iter().map(from).collect(),
        seed: record.key.seed,
        facts: record.key.facts.clone(),
    }
}

/// The stages that a stage waits for, and those that gave it another input.
fn producers(
    plan: &Plan,
    index: usize,
    preview: &Preview,
    previews: &BTreeMap<&str, &Preview>,
    runs: &[RunRecord],
) -> Vec<Producer> {
    let pipeline = plan.pipeline();
    let cell = plan.stage(index);
    let mut found: Vec<Producer> = Vec::new();
    for input in &cell.inputs {
        let Origin::Stage { id, .. } = &input.origin else { continue };
        let Some(producer) = previews.get(id.as_str()) else { continue };
        let open = preview.action == Action::Maybe && producer.action != Action::Cached;
        let what = reason::input(pipeline, Some(cell), &input.port, "changed");
        let changed = preview.changes.iter().any(|change| change.what == what);
        if !(open || changed) || found.iter().any(|known| known.stage == *id) {
            continue;
        }
        let (mut why, mut run) = (producer.reason.clone(), None);
        if let (Action::Cached, Some(last)) = (producer.action, &producer.last) {
            let made = maker(runs, id, &last.key);
            let stage = made.and_then(|run| run.stages.get(id));
            why = stage.map(|stage| stage.reason.clone());
            run = made.map(|run| run.id.clone());
        }
        found.push(Producer { stage: id.clone(), action: producer.action, reason: why, run });
    }
    found
}
