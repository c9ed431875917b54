//! What a run would do: nothing is run, written or locked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use serde::Serialize;

use super::durations::durations;
use super::error::Result;
use super::facts::Untold;
use super::gpus::Gpus;
use super::history::newest_first;
use super::keys::{Done, Keys};
use super::past::{Known, Past};
use super::reason::{self, Change};
use super::runner::Status;
use super::{Options, facts, nearest};
use crate::cache::{ActionKey, ActionRecord, Cache, Digest, Lookup};
use crate::config::StageCell;
use crate::plan::Plan;
use crate::stages::contract::Fact;

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preview {
    /// The stage's id.
    pub stage: String,
    /// What would be done.
    pub action: Action,
    /// Why.
    pub reason: Option<String>,
    /// All that changed since its last success, where it would run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Its last success that the cache still knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Success>,
    /// How the last run ended that tried it or would have, if it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<LastTime>,
    /// Seconds that it took before, where it would run or may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
}

/// When and where a stage ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Success {
    /// Digest of its key.
    pub key: Digest,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Wall time, seconds.
    pub seconds: f64,
    /// The machine's name.
    pub host: String,
    /// Version of qpipe.
    pub version: String,
}

impl From<&ActionRecord> for Success {
    fn from(record: &ActionRecord) -> Self {
        let ActionRecord { started, seconds, host, version, .. } = record.clone();
        Self { key: record.key.digest(), started, seconds, host, version }
    }
}

/// A run in which a stage failed, was interrupted or was left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastTime {
    /// The run.
    pub run: String,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// What happened, where the stage itself failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it ran when the run was ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Its lines, where it printed any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The stage that failed, where this one was left out for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// What a run would do with a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is up to date.
    Cached,
    /// It would run.
    Run,
    /// It would run if what it depends on came out otherwise than before.
    Maybe,
    /// It cannot be told without a fact of the machine: the worker that knows it, or what it is a fact of, is missing.
    Unknown,
}

impl Preview {
    /// Of a stage of which no more is known.
    pub fn new(stage: String, action: Action, reason: Option<String>) -> Self {
        let (changes, last, last_time, estimate) = (Vec::new(), None, None, None);
        Self { stage, action, reason, changes, last, last_time, estimate }
    }
}

/// What a run of the plan would do. It works without a cache folder, takes no lock and writes
/// nothing.
///
/// # Errors
///
/// Unknown stages in `options`, inputs that cannot be read.
pub fn preview(plan: &Plan, cache: &Cache, options: &Options) -> Result<Vec<Preview>> {
    Outlook::new(plan, cache, options)?.all()
}

/// A look at what a run would do.
pub(super) struct Outlook<'a> {
    pub plan: &'a Plan<'a>,
    pub cache: &'a Cache,
    pub past: Past<'a>,
    pub keys: Keys,
    /// Records of the stages that are up to date.
    pub done: Done,
    forced: BTreeSet<usize>,
}

impl<'a> Outlook<'a> {
    pub fn new(plan: &'a Plan<'a>, cache: &'a Cache, options: &Options) -> Result<Self> {
        let mut forced = BTreeSet::new();
        for name in &options.force {
            forced.extend(plan.named(name)?);
        }
        let gpus = Rc::new(Gpus::of(options, plan));
        let (past, keys) = (Past::new(cache, plan.pipeline()), Keys::new(cache, plan, gpus));
        Ok(Self { plan, cache, past, keys, done: Done::new(), forced })
    }

    /// All stages of the plan.
    pub fn all(&mut self) -> Result<Vec<Preview>> {
        let (mut previews, mut pending) = (Vec::new(), Vec::new());
        for index in self.plan.order() {
            let preview = self.look(index)?;
            if preview.action != Action::Cached {
                pending.push((index, previews.len()));
            }
            previews.push(preview);
        }
        if !pending.is_empty() {
            self.lacks(&pending, &mut previews);
            let stages = pending.iter().map(|(index, _)| *index);
            let seconds = durations(self.plan, self.cache, stages)?;
            for (index, place) in &pending {
                previews[*place].estimate = seconds.get(index).copied();
            }
            let places = pending.into_iter().map(|(_, place)| place).collect();
            self.failures(&mut previews, places)?;
        }
        Ok(previews)
    }

    /// Adds to previews what is known to be missing: all of it where the worker was asked, nothing else.
    fn lacks(&self, pending: &[(usize, usize)], previews: &mut [Preview]) {
        for &(index, place) in pending {
            let cell = self.plan.stage(index);
            let view = self.keys.gpus.view(cell);
            let facts = cell.facts.iter().copied();
            let missing = facts.filter_map(|fact| match self.keys.facts.untold(fact, &view) {
                Some(why @ Untold::Missing { .. }) => Some((fact, why.clone())),
                _ => None,
            });
            let missing: Vec<_> = missing.collect();
            let preview = &mut previews[place];
            if !missing.is_empty() && preview.action != Action::Unknown {
                let reason = preview.reason.get_or_insert_default();
                reason.push_str(&format!("; {}", needs(&missing)));
            }
        }
    }

    fn look(&mut self, index: usize) -> Result<Preview> {
        let cell = self.plan.stage(index);
        let mut preview = Preview::new(cell.id.clone(), Action::Run, None);
        let open = self.open(index);
        if self.forced.contains(&index) {
            preview.reason = Some("forced".to_owned());
        } else if !open.is_empty() {
            // Its own part may already differ, but the key is not known.
            preview.action = Action::Maybe;
            preview.reason = Some(format!("depends on {}", brief(&open)));
        } else {
            self.compare(cell, &mut preview)?;
        }
        if preview.last.is_none() {
            let record = self.past.of(cell)?.and_then(|old| old.record);
            preview.last = record.as_ref().map(Success::from);
        }
        Ok(preview)
    }

    /// Producers of a stage that are not known to be up to date.
    pub fn open(&self, index: usize) -> Vec<&'a str> {
        let producers = self.plan.producers(index).into_iter();
        let ids = producers.map(|producer| self.plan.stage(producer).id.as_str());
        ids.filter(|id| !self.done.contains_key(*id)).collect()
    }

    /// Looks up a stage whose producers are all up to date.
    fn compare(&mut self, cell: &StageCell, preview: &mut Preview) -> Result<()> {
        let mut key = self.keys.without_facts(self.plan.pipeline(), cell, &self.done)?;
        let untold = self.keys.add_facts(cell, &mut key)?;
        if !untold.is_empty() {
            let old = self.past.of(cell)?;
            preview.changes = self.changes_but_for(cell, key, &untold, old.as_ref());
            if preview.changes.is_empty() {
                (preview.action, preview.reason) = (Action::Unknown, Some(needs(&untold)));
            } else {
                preview.reason = Some(reason::explain(&preview.changes, old.as_ref()));
            }
            return Ok(());
        }
        match self.cache.lookup(&key.digest())? {
            Lookup::Hit(record) => {
                preview.action = Action::Cached;
                preview.last = Some(Success::from(&*record));
                self.done.insert(cell.id.clone(), *record);
            }
            Lookup::Miss => {
                let Some(old) = self.past.of(cell)? else {
                    let pipeline = self.plan.pipeline();
                    preview.reason = Some(nearest::never_ran(&self.past, pipeline, cell, &key)?);
                    return Ok(());
                };
                preview.changes = self.changes_but_for(cell, key, &[], Some(&old));
                preview.reason = Some(reason::explain(&preview.changes, Some(&old)));
            }
            Lookup::Damaged(what) => preview.reason = Some(format!("record damaged: {what}")),
        }
        Ok(())
    }

    /// All in which a key differs from an old one, but for facts that nobody can tell now.
    pub fn changes_but_for(
        &self,
        cell: &StageCell,
        mut key: ActionKey,
        untold: &[(Fact, Untold)],
        old: Option<&Known>,
    ) -> Vec<Change> {
        let Some(Known { key: old, .. }) = old else { return Vec::new() };
        for (fact, _) in untold {
            let name = facts::name(*fact);
            key.facts.extend(old.facts.get(&name).map(|value| (name, value.clone())));
        }
        reason::changes_with_files(&self.keys.inputs, self.plan.pipeline(), cell, &key, old)
    }

    /// Adds to previews how the last run ended that tried the stage or would have.
    fn failures(&self, previews: &mut [Preview], mut places: Vec<usize>) -> Result<()> {
        const RUNS: usize = 32;
        let pipeline = self.plan.pipeline();
        for run in newest_first(self.cache)?.filter(|run| run.is_of(pipeline)).take(RUNS) {
            if places.is_empty() {
                break;
            }
            let (id, started) = (&run.id, &run.started);
            places.retain(|&place| {
                let preview = &mut previews[place];
                let time = LastTime {
                    run: id.clone(),
                    started: started.clone(),
                    message: None,
                    interrupted: false,
                    log: None,
                    skipped: run.skipped.get(&preview.stage).cloned(),
                };
                if let Some(stage) = run.stages.get(&preview.stage) {
                    if !stage.status.has_result() {
                        let failure = stage.failure.as_ref();
                        let message = failure.map(|failure| failure.message.clone());
                        let interrupted = stage.status == Status::Interrupted;
                        let log = run.log(self.cache, &preview.stage);
                        preview.last_time =
                            Some(LastTime { message, interrupted, log, skipped: None, ..time });
                    }
                    return false;
                }
                if time.skipped.is_none() {
                    return true;
                }
                preview.last_time = Some(time);
                false
            });
        }
        Ok(())
    }
}

/// What a stage needs whose facts cannot be told.
fn needs(untold: &[(Fact, Untold)]) -> String {
    // The worker that answers has libtorch: what is missing is the GPU that is asked for, and it says which.
    let of_libtorch =
        |fact| matches!(fact, Fact::Libtorch | Fact::LibtorchCpu | Fact::LibtorchCuda);
    let (mut missing, mut unasked, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for (fact, why) in untold {
        match why {
            Untold::Worker(_) => unasked.push(fact.words()),
            // So has the one that found TensorRT.
            Untold::Missing { reason, .. }
                if of_libtorch(*fact) || reason.starts_with("no NVIDIA GPU") =>
            {
                told.push(reason.as_str());
            }
            Untold::Missing { .. } => missing.push(fact.words()),
        }
    }
    let mut needs = Vec::new();
    if !missing.is_empty() {
        needs.push(format!("needs {}, which is missing here", missing.join(", ")));
    }
    if !told.is_empty() {
        needs.push(format!("cannot compute here: {}", told.join("; ")));
    }
    if needs.is_empty() {
        needs.push(format!("needs qpipe-worker to tell {}", unasked.join(", ")));
    }
    needs.join("; ")
}

/// How many stages there are of each action: up to date, to run, that may run, unknown.
pub fn counts(previews: &[Preview]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::from([("cached", 0), ("run", 0), ("maybe", 0), ("unknown", 0)]);
    for preview in previews {
        let name = match preview.action {
            Action::Cached => "cached",
            Action::Run => "run",
            Action::Maybe => "maybe",
            Action::Unknown => "unknown",
        };
        counts.entry(name).and_modify(|count| *count += 1);
    }
    counts
}

/// The first three names.
fn brief(names: &[&str]) -> String {
    match names {
        [one, two, three, _, more @ ..] => {
            format!("{one}, {two}, {three} and {} more", more.len() + 1)
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GPU that is named and is not there was told as a libtorch that is missing.
    #[test]
    fn what_is_missing_is_named() {
        let missing =
            |fact, reason: &str| (fact, Untold::Missing { reason: reason.to_owned(), help: None });
        let gpu =
            missing(Fact::Libtorch, "QPIPE_DEVICE = cuda:0 asks for GPU 0, libtorch finds none");
        let told = "cannot compute here: QPIPE_DEVICE = cuda:0 asks for GPU 0, libtorch finds none";
        assert_eq!(needs(std::slice::from_ref(&gpu)), told);
        let trtexec = missing(Fact::TensorRt, "no trtexec");
        let first = "needs TensorRT (trtexec), which is missing here";
        assert_eq!(needs(std::slice::from_ref(&trtexec)), first);
        assert_eq!(needs(&[trtexec, gpu]), format!("{first}; {told}"));
        // TensorRT is there.
        let gpu = missing(Fact::TensorRt, "no NVIDIA GPU is visible here: it builds on one");
        assert!(needs(&[gpu]).starts_with("cannot compute here: no NVIDIA GPU is visible"));
    }
}
