//! What each run did: `runs/RUN.json` in the cache.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::commit::{Asked, Commit};
use super::error::{At, Result};
use super::event::Event;
use super::reason::Change;
use super::runner::{Run, Status};
use super::{host, view};
use crate::cache::{Cache, Digest, files};
use crate::config::Pipeline;
use crate::task::Failure;

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
    /// Arguments of it that shaped the pipeline: `--set`, `params.epochs=5`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// The commit that the pipeline file's folder was at, in a git work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
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
    /// Stages that did not run because one that they need failed → that stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, String>,
    /// How many others did not run, since one had failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
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
    /// All that changed since the success before, old and new values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Digest of the key of the success before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
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
        self.tell_namesake()?;
        let id = |index: usize| self.stage(index).id.clone();
        let lost = self.lost.borrow();
        let stages = notes.iter().map(|(index, note)| {
            let stage = StageRun {
                key: note.key,
                status: note.status,
                reason: note.reason.clone(),
                changes: note.changes.clone(),
                before: note.before,
                failure: note.failure.clone(),
                seconds: note.seconds,
            };
            (self.stage(*index).id.clone(), stage)
        });
        let record = RunRecord {
            id: self.id.clone(),
            pipeline: self.plan.pipeline().name.clone(),
            file: self.plan.pipeline().file.clone(),
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            arguments: self.plan.pipeline().arguments.clone(),
            commit: self.commit.take().and_then(Asked::answer),
            started: self.started.to_string(),
            seconds: self.start.elapsed().as_secs_f64(),
            host: host::name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stages: stages.collect(),
            skipped: lost.iter().map(|(index, failed)| (id(*index), id(*failed))).collect(),
            left: self.summary.borrow().skipped.saturating_sub(lost.len()),
        };
        let path = self.cache.place("runs").join(format!("{}.json", self.id));
        let json = serde_json::to_vec(&record).map_err(std::io::Error::other);
        let mut json = json.at("write", &path)?;
        json.push(b'\n');
        Ok(files::publish_unflushed(&path, &json)?)
    }
}

/// Runs among which a pipeline looks for its own.
const SEARCHED: usize = 1000;

impl Run<'_> {
    /// Warns in the first run of a pipeline whose name another file has in this cache: results are kept apart by their keys, what is found by
    /// the name is not.
    fn tell_namesake(&self) -> Result<()> {
        let pipeline = self.plan.pipeline();
        let runs = newest_first(self.cache)?.take(SEARCHED);
        let mut other = None;
        for run in runs.filter(|run| run.pipeline == pipeline.name) {
            if run.is_of(pipeline) {
                return Ok(());
            }
            other.get_or_insert(run.file);
        }
        if let Some(other) = other {
            let message = format!(
                "{} is called \"{}\" too and has this cache: {} shows the artifacts of whichever ran last, and changes are told against its results. Another name keeps them apart: [pipeline] name = \"…\"",
                other.display(),
                pipeline.name,
                view::folder(self.cache, &pipeline.name).display()
            );
            self.tell(&Event::Warning { stage: None, message: &message });
        }
        Ok(())
    }
}

/// Whether these are two files that are both there. Of a file that is gone nobody can tell: it may have been moved, or be that of another machine.
fn are_two(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    match (one == other, place(one), place(other)) {
        (false, Some(one), Some(other)) => one != other,
        _ => false,
    }
}

impl RunRecord {
    /// Whether it is one of this pipeline: of its name, and not of another file that has the same name in this cache.
    pub fn is_of(&self, pipeline: &Pipeline) -> bool {
        self.pipeline == pipeline.name && !are_two(&self.file, &pipeline.file)
    }

    /// The record of a run from its file; `None` if it is not readable, or of another run: its logs are
    /// looked up by its id, so that is no path of a stranger's choice.
    pub(crate) fn read(id: &str, json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().filter(|run: &Self| run.id == id)
    }

    /// How many stages ended in some way.
    pub fn count(&self, status: Status) -> usize {
        self.stages.values().filter(|stage| stage.status == status).count()
    }

    /// How many stages did not run because one failed.
    pub fn not_run(&self) -> usize {
        self.skipped.len().saturating_add(self.left)
    }

    /// Where a stage's lines are, if it printed any in this run.
    pub fn log(&self, cache: &Cache, stage: &str) -> Option<PathBuf> {
        let path = log(cache, &self.id, stage);
        path.exists().then_some(path)
    }
}

/// Where a stage's lines go in a run.
pub(super) fn log(cache: &Cache, run: &str, stage: &str) -> PathBuf {
    cache.place("logs").join(run).join(format!("{}.log", crate::cache::plain_name(stage)))
}

/// The runs that a cache remembers, oldest first; what cannot be read is left out.
///
/// # Errors
///
/// A folder that cannot be listed.
pub fn runs(cache: &Cache) -> Result<Vec<RunRecord>> {
    let mut runs: Vec<RunRecord> = newest_first(cache)?.collect();
    runs.reverse();
    Ok(runs)
}

/// The runs that a cache remembers, newest first, each read when it is asked for; what cannot be
/// read is left out.
///
/// # Errors
///
/// A folder that cannot be listed.
pub fn newest_first(cache: &Cache) -> Result<impl Iterator<Item = RunRecord> + use<>> {
    let mut paths = files::list(&cache.place("runs"))?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    // A name begins with the second in which the run began; within it, the records decide.
    let second = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.rsplit_once('-').map_or_else(|| name.to_string(), |(second, _)| second.to_owned())
    };
    let groups: Vec<Vec<PathBuf>> =
        paths.chunk_by(|a, b| second(a) == second(b)).map(<[PathBuf]>::to_vec).collect();
    Ok(groups.into_iter().rev().flat_map(|group| {
        let read = |path: &PathBuf| {
            let json = files::read(path).ok()??;
            RunRecord::read(&path.file_stem()?.to_string_lossy(), &json)
        };
        let mut group: Vec<RunRecord> = group.iter().filter_map(read).collect();
        group.sort_by(|a, b| b.started.cmp(&a.started));
        group
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_under_another_runs_name_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        std::fs::create_dir(cache.place("runs")).unwrap();
        let put = |name: &str, id: &str| {
            let json = serde_json::json!({
                "id": id, "pipeline": "p", "file": "/p.toml", "command": [], "started": "",
                "seconds": 0.5, "host": "", "version": "", "stages": {},
            });
            std::fs::write(cache.place("runs").join(name), json.to_string()).unwrap();
        };
        put("20250101-1-1.json", "20250101-1-1");
        put("20250101-1-2.json", "../../elsewhere");
        let ids: Vec<String> = newest_first(&cache).unwrap().map(|run| run.id).collect();
        assert_eq!(ids, ["20250101-1-1"]);
    }
}
