//! The table of a sweep, and its files beside the artifacts.

use super::error::{At, Result};
use super::keys::Done;
use super::view;
use crate::cache::Cache;
use crate::plan::Plan;
use crate::report::{Better, SweepTable};

/// The figures of the stages that are done, a row a point; `None` where no stage of a point has any,
/// or the pipeline is no sweep.
pub fn table(plan: &Plan, done: &Done, best: &[(String, Better)]) -> Option<SweepTable> {
    let sweep = plan.pipeline().sweep.as_ref()?;
    let mut found = Vec::new();
    for index in plan.order() {
        let cell = plan.stage(index);
        let (Some(point), Some(record)) = (&cell.point, done.get(&cell.id)) else { continue };
        if !matches!(cell.kind.name, "evaluate" | "benchmark" | "command") {
            continue;
        }
        let position = sweep.points.iter().position(|other| other.label == point.label);
        let position = position.expect("a stage's point is one of the sweep's");
        found.push((position, cell.base_id().to_owned(), record.metrics.clone()));
    }
    let table = SweepTable::new(sweep, &found, best);
    (!table.is_empty()).then_some(table)
}

/// Writes `sweep.md` and `sweep.json` into the folder of the pipeline's readable names.
///
/// # Errors
///
/// Files that cannot be written.
pub fn write(cache: &Cache, pipeline: &str, table: &SweepTable) -> Result<()> {
    let folder = view::folder(cache, pipeline);
    std::fs::create_dir_all(&folder).at("create", &folder)?;
    let mut json = serde_json::to_string_pretty(table).expect("a table serialises to JSON");
    json.push('\n');
    for (name, text) in [("sweep.md", table.markdown()), ("sweep.json", json)] {
        let path = folder.join(name);
        std::fs::write(&path, text).at("write", &path)?;
    }
    Ok(())
}
