//! What a run would do: nothing is run, written or locked.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Options;
use super::error::Result;
use super::keys::{Done, Keys};
use super::past::Past;
use super::reason::{self, Change};
use crate::cache::{ActionRecord, Cache, Lookup};
use crate::plan::Plan;

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
}

/// When and where a stage ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Success {
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
        Self { started, seconds, host, version }
    }
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
}

/// What a run of the plan would do.
///
/// # Errors
///
/// Unknown stages in `options`, inputs that cannot be read, facts that cannot be told.
pub fn preview(plan: &Plan, cache: &Cache, options: &Options) -> Result<Vec<Preview>> {
    let pipeline = plan.pipeline();
    let mut forced = BTreeSet::new();
    for name in &options.force {
        forced.extend(plan.named(name)?);
    }
    let mut keys = Keys::new(cache, plan);
    let past = Past::new(cache, pipeline);
    let mut done = Done::new();
    let mut previews = Vec::new();
    for index in plan.order() {
        let cell = plan.stage(index);
        let open: Vec<&str> = plan
            .producers(index)
            .into_iter()
            .map(|producer| plan.stage(producer).id.as_str())
            .filter(|id| !done.contains_key(*id))
            .collect();
        let (mut changes, mut success) = (Vec::new(), None);
        let (action, reason) = if forced.contains(&index) {
            (Action::Run, Some("forced".to_owned()))
        } else if !open.is_empty() {
            // Its own part may already differ, but the key is not known.
            (Action::Maybe, Some(format!("depends on {}", brief(&open))))
        } else {
            let key = keys.key(pipeline, cell, &done)?;
            match cache.lookup(&key.digest())? {
                Lookup::Hit(record) => {
                    success = Some(Success::from(&*record));
                    done.insert(cell.id.clone(), *record);
                    (Action::Cached, None)
                }
                Lookup::Miss => {
                    let old = past.of(cell)?;
                    let inputs = &keys.inputs;
                    changes = old.as_ref().map_or_else(Vec::new, |old| {
                        reason::changes_with_files(inputs, pipeline, cell, &key, &old.key)
                    });
                    (Action::Run, Some(reason::explain(&changes, old.as_ref())))
                }
                Lookup::Damaged(what) => (Action::Run, Some(format!("record damaged: {what}"))),
            }
        };
        if success.is_none() {
            let record = past.of(cell)?.and_then(|old| old.record);
            success = record.as_ref().map(Success::from);
        }
        let stage = cell.id.clone();
        previews.push(Preview { stage, action, reason, changes, last: success });
    }
    Ok(previews)
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
