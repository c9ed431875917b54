//! `report` stages: done in this process, from the figures of others.

use std::path::Path;

use super::error::{At, Result};
use super::failure::failure;
use super::keys::Done;
use crate::cache::Cache;
use crate::config::{Origin, Pipeline, StageCell};
use crate::report::{self, Report, Source};
use crate::stages::contract::Metrics;
use crate::stages::report::Report as Config;
use crate::task::{Blame, Failure};

/// What a report depends on besides the figures: the names that it shows.
pub fn config(pipeline: &Pipeline, cell: &StageCell) -> serde_json::Value {
    let sources: Vec<_> = producers(pipeline, cell)
        .map(|producer| {
            let cells: Vec<_> = producer.cell.iter().map(|(name, value)| (name, value)).collect();
            serde_json::json!({"id": producer.id, "kind": producer.kind.name, "cell": cells})
        })
        .collect();
    let mut config = cell.stage.config();
    if let Some(config) = config.as_object_mut() {
        config.insert("pipeline".to_owned(), title(pipeline, cell).into());
        config.insert("sources".to_owned(), sources.into());
    }
    config
}

/// The pipeline's name, with the point of the sweep that the report is about.
fn title(pipeline: &Pipeline, cell: &StageCell) -> String {
    match &cell.point {
        Some(point) => format!("{}, {}", pipeline.name, point.label),
        None => pipeline.name.clone(),
    }
}

/// The stages whose figures a report shows, in its inputs' order.
fn producers<'p>(
    pipeline: &'p Pipeline,
    cell: &'p StageCell,
) -> impl Iterator<Item = &'p StageCell> {
    cell.inputs.iter().filter_map(|input| match &input.origin {
        Origin::Stage { id, .. } => pipeline.stages.iter().find(|stage| stage.id == *id),
        Origin::Data(_) | Origin::Path(_) => None,
    })
}

/// Writes the report's files into `out`.
pub fn run(
    cache: &Cache,
    pipeline: &Pipeline,
    cell: &StageCell,
    done: &Done,
    out: &Path,
) -> Result<std::result::Result<Metrics, Failure>> {
    let Some(config) = cell.stage.as_any().downcast_ref::<Config>() else {
        let message = format!("the runner cannot run `{}`", cell.kind.name);
        return Ok(Err(failure(Blame::Bug, message, None)));
    };
    let mut sources = Vec::new();
    for input in &cell.inputs {
        let Origin::Stage { id, port, .. } = &input.origin else { continue };
        let producer = pipeline.stages.iter().find(|stage| stage.id == *id);
        let output = done.get(id).and_then(|record| record.outputs.get(port));
        let (Some(producer), Some(output)) = (producer, output) else { continue };
        let path = cache.output(output);
        let text = std::fs::read(&path).at("read", &path)?;
        let metrics: Metrics = match serde_json::from_slice(&text) {
            Ok(metrics) => metrics,
            Err(error) => {
                let message = format!("`{id}.{port}` is no JSON object of figures: {error}");
                return Ok(Err(failure(Blame::User, message, None)));
            }
        };
        let source =
            Source { id: id.clone(), name: producer.name.clone(), cell: producer.cell.clone() };
        sources.push((source, metrics));
    }
    let report = match report::build(config, &title(pipeline, cell), &sources) {
        Ok(report) => report,
        Err((message, help)) => return Ok(Err(failure(Blame::User, message, Some(&help)))),
    };
    let mut json = serde_json::to_string_pretty(&report).expect("a report serialises to JSON");
    json.push('\n');
    for output in cell.stage.outputs() {
        let text = match output.port.as_str() {
            "table" => report.markdown(),
            "html" => report.html(),
            _ => json.clone(),
        };
        let path = out.join(&output.file);
        std::fs::write(&path, text).at("write", &path)?;
    }
    Ok(Ok(Metrics::new()))
}

/// The table of a report stage that is done.
pub fn read(cache: &Cache, done: &Done, cell: &StageCell) -> Option<Report> {
    let output = done.get(&cell.id)?.outputs.get("json")?;
    serde_json::from_slice(&std::fs::read(cache.output(output)).ok()?).ok()
}
