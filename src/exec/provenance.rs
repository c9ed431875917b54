//! Where an artifact comes from, and the commands that make it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::commit::Commit;
use super::error::Result;
use super::explain::maker;
use super::history::RunRecord;
use super::past::label;
use super::preview::{Outlook, Success};
use super::{Options, program, reason, shell};
use crate::cache::{ActionRecord, Cache, Digest};
use crate::config::{Origin, Pipeline, StageCell, secrets};
use crate::plan::Plan;
use crate::stages::command::{Command, Run};
use crate::stages::contract::Metrics;

/// Where the last result of a stage comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Provenance {
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Version of the kind.
    pub kind_version: u32,
    /// When, where and by which qpipe it was made, and its key.
    pub made: Success,
    /// Whether a run of the file as it is would take this result; otherwise it is that of the last run.
    pub current: bool,
    /// The run that made it, where that is still known.
    pub run: Option<String>,
    /// The commit that the pipeline file's folder was at.
    pub commit: Option<Commit>,
    /// Semantic configuration.
    pub config: serde_json::Value,
    /// Seed of all randomness.
    pub seed: u64,
    /// Facts of the machine that matter to it.
    pub facts: BTreeMap<String, String>,
    /// What it was made from.
    pub inputs: Vec<Source>,
    /// The stages before it, producers first, with what they were made from.
    pub chain: Vec<Link>,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// Its figures.
    pub metrics: Metrics,
    /// The commands that make it again, for `sh`.
    pub commands: Vec<String>,
    /// A command stage's own command line with its environment, for `sh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// What stood at a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The port.
    pub port: String,
    /// In words: `input x (from a)`, `data train`, `file src.txt`.
    pub what: String,
    /// Digest of what stood there.
    pub digest: Digest,
}

/// A stage before another one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Its id.
    pub stage: String,
    /// How it was made; `None` where the cache no longer knows.
    pub made: Option<Success>,
    /// The run that made it.
    pub run: Option<String>,
    /// What it was made from.
    pub inputs: Vec<Source>,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The port.
    pub port: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Its size, bytes.
    pub bytes: u64,
    /// Where it is in the cache.
    pub path: PathBuf,
}

/// Records of the stages that are up to date; none where an input cannot be read.
pub fn up_to_date(plan: &Plan, cache: &Cache) -> BTreeMap<String, ActionRecord> {
    let looked = Outlook::new(plan, cache, &Options::default())
        .and_then(|mut outlook| outlook.all().map(|_| outlook.done));
    looked.unwrap_or_default()
}

/// Where the result of the stage at a position comes from: that of the pipeline as it is ([`up_to_date`]), else the last one; `None` where the cache
/// knows none. `runs`: those of the pipeline, newest first.
///
/// # Errors
///
/// A cache that cannot be read.
pub fn provenance(
    plan: &Plan,
    cache: &Cache,
    runs: &[RunRecord],
    up_to_date: &BTreeMap<String, ActionRecord>,
    index: usize,
) -> Result<Option<Provenance>> {
    let (pipeline, cell) = (plan.pipeline(), plan.stage(index));
    let current = up_to_date.get(&cell.id).cloned();
    let is_current = current.is_some();
    let last = || cache.last_record(&label(pipeline, cell));
    let Some(record) = current.map_or_else(last, |record| Ok(Some(record)))? else {
        return Ok(None);
    };
    let made = Success::from(&record);
    let run = maker(runs, &cell.id, &made.key);
    let chain = chain(plan, cache, runs, cell, &record)?;
    let output = |(port, output): (&String, &crate::cache::StoredOutput)| Output {
        port: port.clone(),
        digest: output.digest,
        bytes: output.bytes,
        path: cache.output(output),
    };
    Ok(Some(Provenance {
        stage: cell.id.clone(),
        kind: record.key.kind.clone(),
        kind_version: record.key.kind_version,
        run: run.map(|run| run.id.clone()),
        commit: run.and_then(|run| run.commit.clone()),
        config: record.key.config.clone(),
        seed: record.key.seed,
        facts: record.key.facts.clone(),
        inputs: sources(pipeline, cell, &record),
        chain,
        outputs: record.outputs.iter().map(output).collect(),
        metrics: record.metrics.clone(),
        commands: commands(pipeline, cell, run),
        program: own_program(pipeline, cache, cell, &record, runs)?,
        made,
        current: is_current,
    }))
}

fn sources(pipeline: &Pipeline, cell: &StageCell, record: &ActionRecord) -> Vec<Source> {
    let source = |(port, digest): (&String, &Digest)| Source {
        port: port.clone(),
        what: reason::input(pipeline, Some(cell), port, ""),
        digest: *digest,
    };
    record.key.inputs.iter().map(source).collect()
}

/// The record of a stage whose output at a port has that digest.
fn producer(
    pipeline: &Pipeline,
    cache: &Cache,
    runs: &[RunRecord],
    cell: &StageCell,
    port: &str,
    digest: &Digest,
) -> Result<Option<ActionRecord>> {
    let gave = |record: &ActionRecord| {
        record.outputs.get(port).is_some_and(|output| output.digest == *digest)
    };
    if let Some(record) = cache.last_record(&label(pipeline, cell))?.filter(gave) {
        return Ok(Some(record));
    }
    let keys: BTreeSet<Digest> =
        runs.iter().filter_map(|run| Some(run.stages.get(&cell.id)?.key)).collect();
    for key in keys {
        if let Some(record) = cache.record_of(&key)?.filter(gave) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// All stages that a result was made from, producers first.
fn chain(
    plan: &Plan,
    cache: &Cache,
    runs: &[RunRecord],
    cell: &StageCell,
    record: &ActionRecord,
) -> Result<Vec<Link>> {
    let pipeline = plan.pipeline();
    let mut open = vec![(cell, Some(record.clone()))];
    let mut links: BTreeMap<&str, Link> = BTreeMap::new();
    while let Some((cell, record)) = open.pop() {
        let Some(record) = record else { continue };
        for input in &cell.inputs {
            let Origin::Stage { id, port, .. } = &input.origin else { continue };
            let Some(digest) = record.key.inputs.get(&input.port) else { continue };
            let Some(before) = pipeline.stages.iter().find(|cell| cell.id == *id) else { continue };
            if links.contains_key(before.id.as_str()) {
                continue;
            }
            let found = producer(pipeline, cache, runs, before, port, digest)?;
            let made = found.as_ref().map(Success::from);
            let run = made.as_ref().and_then(|made| maker(runs, id, &made.key));
            let inputs = found.as_ref().map(|found| sources(pipeline, before, found));
            let link = Link {
                stage: before.id.clone(),
                run: run.map(|run| run.id.clone()),
                inputs: inputs.unwrap_or_default(),
                made,
            };
            links.insert(&before.id, link);
            open.push((before, found));
        }
    }
    let order = Plan::new(pipeline);
    let ids = order.order().map(|index| pipeline.stages[index].id.as_str());
    Ok(ids.filter_map(|id| links.remove(id)).collect())
}

/// The commands that make a stage's result again.
fn commands(pipeline: &Pipeline, cell: &StageCell, run: Option<&RunRecord>) -> Vec<String> {
    let folder = shell::word(&pipeline.folder.to_string_lossy());
    let mut commands = vec![format!("cd {folder}")];
    if let Some(commit) = run.and_then(|run| run.commit.as_ref()) {
        let note = if commit.dirty { "  # with changes that were not committed" } else { "" };
        commands.push(format!("git checkout {}{note}", commit.id));
    }
    let file = pipeline.file.strip_prefix(&pipeline.folder).unwrap_or(&pipeline.file);
    let file = file.to_string_lossy().into_owned();
    let mut words = vec!["qpipe", "run", &file, &cell.id];
    // Of a run that is no longer known, those with which it is looked at.
    let arguments = run.map_or(&pipeline.arguments, |run| &run.arguments);
    words.extend(arguments.iter().map(String::as_str));
    commands.push(shell::line(words));
    commands
}

/// A command's own line, with what it finds in its environment; outputs go to the folder `out`.
fn own_program(
    pipeline: &Pipeline,
    cache: &Cache,
    cell: &StageCell,
    record: &ActionRecord,
    runs: &[RunRecord],
) -> Result<Option<String>> {
    if record.key.kind != "command" {
        return Ok(None);
    }
    let Ok(config) = serde_json::from_value::<Command>(record.key.config.clone()) else {
        return Ok(None);
    };
    let mut words = Vec::new();
    let mut set = |name: &str, value: &str| words.push(format!("{name}={}", shell::word(value)));
    set("QPIPE_OUT", "out");
    set("QPIPE_SEED", &record.key.seed.to_string());
    for input in &cell.inputs {
        let name = format!("QPIPE_IN_{}", program::variable(&input.port));
        let path = match &input.origin {
            Origin::Path(path) => Some(path.clone()),
            Origin::Data(_) => None,
            Origin::Stage { id, port, .. } => {
                let digest = record.key.inputs.get(&input.port);
                let before = pipeline.stages.iter().find(|cell| cell.id == *id);
                let found = match (digest, before) {
                    (Some(digest), Some(before)) => {
                        producer(pipeline, cache, runs, before, port, digest)?
                    }
                    _ => None,
                };
                found.and_then(|found| Some(cache.output(found.outputs.get(port)?)))
            }
        };
        if let Some(path) = path {
            set(&name, &path.to_string_lossy());
        }
    }
    let mut folders = BTreeSet::from([PathBuf::from("out")]);
    for (port, output) in &record.outputs {
        let path = Path::new("out").join(&output.file);
        folders.extend(path.parent().map(Path::to_owned));
        set(&format!("QPIPE_OUT_{}", program::variable(port)), &path.to_string_lossy());
    }
    for (name, value) in &config.env {
        let mut value = shell::word(value);
        for secret in &cell.secrets {
            // The shell puts it in; it is written nowhere.
            value = value.replace(&secrets::placeholder(secret), &format!("'\"${secret}\"'"));
        }
        words.push(format!("{name}={value}"));
    }
    match &config.run {
        Run::Shell(text) => words.push(shell::line(["sh", "-c", text.as_str()])),
        Run::Arguments(arguments) => words.push(shell::line(arguments.iter().map(String::as_str))),
    }
    let folders: Vec<String> =
        folders.iter().map(|folder| shell::word(&folder.to_string_lossy())).collect();
    Ok(Some(format!("mkdir -p {} && {}", folders.join(" "), words.join(" "))))
}
