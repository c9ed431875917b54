//! A new point of a sweep: of which point the stage ran before, and in what that one differs.

use super::error::Result;
use super::past::Past;
use super::reason::{self, Change};
use crate::cache::ActionKey;
use crate::config::{Pipeline, StageCell};

/// How many differences are told.
const SHOWN: usize = 3;

/// Why a stage runs that has no success yet. Of a sweep's point, it names the nearest one: that with the
/// fewest differences among the sweep's other points and the pipeline without the sweep.
///
/// # Errors
///
/// A cache that cannot be read.
pub fn never_ran(
    past: &Past,
    pipeline: &Pipeline,
    cell: &StageCell,
    key: &ActionKey,
) -> Result<String> {
    const NEVER: &str = "never ran";
    if cell.point.is_none() {
        return Ok(NEVER.to_owned());
    }
    let base = cell.base_id();
    let others = pipeline
        .stages
        .iter()
        .filter(|other| other.point.is_some() && other.id != cell.id && other.base_id() == base);
    let mut nearest: Option<(&str, Vec<Change>)> = None;
    for id in others.map(|other| other.id.as_str()).chain([base]) {
        let Some(record) = past.here(id)? else { continue };
        let changes = reason::changes(pipeline, Some(cell), key, &record.key);
        if nearest.as_ref().is_none_or(|(_, fewest)| changes.len() < fewest.len()) {
            nearest = Some((id, changes));
        }
    }
    let Some((id, changes)) = nearest else { return Ok(NEVER.to_owned()) };
    let mut texts: Vec<String> = changes.iter().take(SHOWN).map(Change::text).collect();
    if changes.len() > SHOWN {
        texts.push(format!("and {} more", changes.len() - SHOWN));
    }
    let texts = texts.join("; ");
    Ok(format!(
        "new point of a sweep: nothing with these parameters ran before; nearest is {id} ({texts})"
    ))
}
