//! What a run would do: nothing is run, written or locked.

use std::collections::BTreeSet;

use serde::Serialize;

use super::error::Result;
use super::keys::{Done, Keys};
use super::{Options, reason};
use crate::cache::{Cache, LastKeys, Lookup};
use crate::plan::Plan;

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The stage's id.
    pub stage: String,
    /// What would be done.
    pub action: Action,
    /// Why.
    pub reason: Option<String>,
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
    let last = LastKeys::load(cache, &pipeline.name);
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
        let (action, reason) = if forced.contains(&index) {
            (Action::Run, Some("forced".to_owned()))
        } else if !open.is_empty() {
            // Its own part may already differ, but the key is not known.
            (Action::Maybe, Some(format!("depends on {}", brief(&open))))
        } else {
            let key = keys.key(pipeline, cell, &done)?;
            match cache.lookup(&key.digest())? {
                Lookup::Hit(record) => {
                    done.insert(cell.id.clone(), *record);
                    (Action::Cached, None)
                }
                Lookup::Miss => {
                    let why = reason::explain(pipeline, cell, &key, last.get(&cell.id));
                    (Action::Run, Some(why))
                }
                Lookup::Damaged(what) => (Action::Run, Some(format!("record damaged: {what}"))),
            }
        };
        previews.push(Preview { stage: cell.id.clone(), action, reason });
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
