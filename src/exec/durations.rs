//! How long stages take, from earlier runs.

use std::collections::BTreeMap;

use super::error::Result;
use super::history::newest_first;
use super::past::label;
use super::runner::Status;
use crate::cache::Cache;
use crate::plan::Plan;

/// How many runs are looked through for stages whose record is gone.
const RUNS: usize = 8;

/// Seconds that stages took before, by position: their last success, else their last time in an
/// earlier run, else the median of other cells of the same table. Those of which nothing is known
/// are left out.
///
/// # Errors
///
/// A cache that cannot be read.
pub fn durations(
    plan: &Plan,
    cache: &Cache,
    stages: impl Iterator<Item = usize>,
) -> Result<BTreeMap<usize, f64>> {
    let pipeline = plan.pipeline();
    let last = |index: usize| -> Result<Option<f64>> {
        let record = cache.last_record(&label(pipeline, plan.stage(index)))?;
        Ok(record.map(|record| record.seconds))
    };
    let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
    for index in stages {
        match last(index)? {
            Some(seconds) => drop(found.insert(index, seconds)),
            None => missing.push(index),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let ours = newest_first(cache)?.filter(|run| run.pipeline == pipeline.name);
    for run in ours.take(RUNS) {
        missing.retain(|&index| {
            let stage = run.stages.get(&plan.stage(index).id);
            let ran = stage.filter(|stage| stage.status == Status::Ran);
            found.extend(ran.map(|stage| (index, stage.seconds)));
            ran.is_none()
        });
    }
    let mut medians: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    for index in missing {
        let name = plan.stage(index).name.as_str();
        if !medians.contains_key(name) {
            let cells = pipeline.stages.iter().enumerate().filter(|(_, cell)| cell.name == name);
            let mut known = Vec::new();
            for (cell, _) in cells.filter(|(cell, _)| *cell != index) {
                known.extend(last(cell)?);
            }
            known.sort_by(f64::total_cmp);
            medians.insert(name, known.get(known.len() / 2).copied());
        }
        found.extend(medians[name].map(|seconds| (index, seconds)));
    }
    Ok(found)
}
