//! `[guards.NAME]`: bounds of figures that `qpipe ci` holds a run to.

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::interpolate::Interpolator;
use super::lookup::Spot;
use super::mistakes::{Mistake, Sources};
use super::reference::Reference;
use super::resolve::Names;
use super::schema;
use super::stage::{self, RawCell};
use super::tree::{Entry, Node, Place, Value};
use crate::stages::contract::{PortType, Runs};

/// A bound of a figure, checked against the last accepted lock file.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// Name of the table.
    pub name: String,
    /// Id of the stage, such as `measured[qat]`.
    pub stage: String,
    /// Name of the figure, as it stands among those of the stage.
    pub metric: String,
    /// The figure of the same run that changes are measured from; `None`: the accepted one.
    pub baseline: Option<Baseline>,
    /// One or two bounds.
    pub bounds: Vec<Bound>,
    /// The file that its table stands in, absolute: the pipeline's, or one that it extends.
    pub file: Arc<Path>,
    /// Line of its table in that file, from 1.
    pub line: usize,
}

/// Another figure of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Id of its stage, such as `measured[fp32]`.
    pub stage: String,
    /// Its name among those of the stage.
    pub metric: String,
}

/// A bound of a figure. Changes are from the accepted figure, or the baseline, to the new one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// It may fall by this much.
    MaxDrop(f64),
    /// It may fall by this many percent of the accepted figure.
    MaxDropPercent(f64),
    /// It may grow by this much.
    MaxGrowth(f64),
    /// It may grow by this many percent of the accepted figure.
    MaxGrowthPercent(f64),
    /// It is at least this.
    Min(f64),
    /// It is at most this.
    Max(f64),
}

/// The `[guards.NAME]` table: `metric` and one or two bounds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GuardTable {
    /// The figure: `"STAGE.METRIC"` or `"STAGE[CELL].METRIC"`.
    #[schemars(length(min = 1))]
    metric: String,
    /// Another figure of the same run, such as the float model's, `"STAGE[CELL].METRIC"`, from which changes are measured. Default: the
    /// accepted figure.
    #[serde(default)]
    #[schemars(length(min = 1))]
    baseline: Option<String>,
    /// It may fall by this much from the accepted figure.
    #[serde(default)]
    #[schemars(range(min = 0))]
    max_drop: Option<f64>,
    /// It may fall by this many percent of the accepted figure.
    #[serde(default)]
    #[schemars(range(min = 0))]
    max_drop_percent: Option<f64>,
    /// It may grow by this much from the accepted figure.
    #[serde(default)]
    #[schemars(range(min = 0))]
    max_growth: Option<f64>,
    /// It may grow by this many percent of the accepted figure.
    #[serde(default)]
    #[schemars(range(min = 0))]
    max_growth_percent: Option<f64>,
    /// It is at least this.
    #[serde(default)]
    min: Option<f64>,
    /// It is at most this.
    #[serde(default)]
    max: Option<f64>,
}

impl GuardTable {
    fn bounds(&self) -> Vec<Bound> {
        let bounds = [
            self.max_drop.map(Bound::MaxDrop),
            self.max_drop_percent.map(Bound::MaxDropPercent),
            self.max_growth.map(Bound::MaxGrowth),
            self.max_growth_percent.map(Bound::MaxGrowthPercent),
            self.min.map(Bound::Min),
            self.max.map(Bound::Max),
        ];
        bounds.into_iter().flatten().collect()
    }
}

/// A guard whose stage is not looked up yet.
pub(super) struct RawGuard {
    name: String,
    place: Place,
    table: GuardTable,
    /// `metric`.
    node: Node,
    /// `baseline`, or the table.
    baseline: Node,
}

/// Reads a table; `None` where it has mistakes.
pub(super) fn read(entry: &Entry, reader: &mut Interpolator<'_>) -> Option<RawGuard> {
    stage::is_name("guard", &entry.key, entry.place, &mut reader.mistakes);
    let Some(table) = entry.node.table() else {
        reader.mistakes.push(stage::not_a_table("guards", entry));
        return None;
    };
    let start = reader.mistakes.len();
    let mut table = reader.table(table);
    schema::write_out(schema::guard(), &mut table);
    let path = format!("guards.{}", entry.key);
    schema::check(schema::guard(), &table, &entry.node, &path, &mut reader.mistakes);
    let tree = Node::new(Value::Table(table), entry.node.place);
    if reader.mistakes.len() > start || tree.is_broken() {
        return None;
    }
    let table = GuardTable::deserialize(tree.to_toml())
        .map_err(|error| reader.mistakes.push(stage::from_serde(&tree, &error)))
        .ok()?;
    check_bounds(&entry.key, &table, &tree, &mut reader.mistakes);
    let node = |key: &str| tree.nearest(&[key.to_owned()]).clone();
    let (node, baseline) = (node("metric"), node("baseline"));
    Some(RawGuard { name: entry.key.clone(), place: entry.place, table, node, baseline })
}

fn check_bounds(name: &str, table: &GuardTable, tree: &Node, mistakes: &mut Vec<Mistake>) {
    const HELP: &str = "give one or two of `max_drop`, `max_drop_percent`, `max_growth`, \
                        `max_growth_percent`, `min` and `max`";
    let count = table.bounds().len();
    if !(1..=2).contains(&count) {
        let (message, label) = match count {
            0 => (format!("guard `{name}` has no bound"), "a bound is missing"),
            _ => (format!("guard `{name}` has {count} bounds"), "expected one or two"),
        };
        mistakes.push(Mistake::new("guard", tree.place, message, label).help(HELP));
    }
    let absolute = |bound: &Bound| matches!(bound, Bound::Min(_) | Bound::Max(_));
    if table.baseline.is_some() && count > 0 && table.bounds().iter().all(absolute) {
        let node = tree.nearest(&["baseline".to_owned()]);
        let message = format!("guard `{name}` compares nothing with its baseline");
        mistakes.push(
            Mistake::new("guard", node.place, message, "`min` and `max` need none")
                .also(node.from, "the value comes from here")
                .help("give `max_drop`, `max_drop_percent`, `max_growth` or `max_growth_percent`, or leave it out"),
        );
    }
    if let (Some(min), Some(max)) = (table.min, table.max)
        && min > max
    {
        let node = tree.nearest(&["min".to_owned()]);
        let message = format!("no figure is at least {min} and at most {max}");
        mistakes.push(
            Mistake::new("guard", node.place, message, "above `max`")
                .also(node.from, "the value comes from here"),
        );
    }
}

/// Finds the stages; `None` where it has mistakes.
pub(super) fn resolve(
    guard: RawGuard,
    names: &Names<'_>,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> Option<Guard> {
    let found = figure(&guard.table.metric, &guard.node, names, mistakes);
    let baseline = guard.table.baseline.as_deref();
    let baseline = baseline.map(|text| figure(text, &guard.baseline, names, mistakes));
    let Baseline { stage, metric } = found?;
    let baseline = match baseline {
        Some(found) => Some(found?),
        None => None,
    };
    let file = Arc::clone(sources.file(guard.place.source));
    let (bounds, line) = (guard.table.bounds(), sources.line(guard.place));
    Some(Guard { name: guard.name, stage, metric, baseline, bounds, file, line })
}

/// The figure that a text names; `None` where that is a mistake.
fn figure(
    text: &str,
    node: &Node,
    names: &Names<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Baseline> {
    const FORM: &str = "write STAGE.METRIC or STAGE[CELL].METRIC, such as \"measured.top1\"";
    let spot = Spot { text, accepts: &[PortType::Metrics], node };
    let why = match Reference::parse(spot.text) {
        Ok(Reference::Stage { name, cell, port: Some(metric) }) => {
            let cell = names.cell(name, cell, &spot, mistakes)?;
            if !has_figures(cell)? {
                let message = format!("stage `{}` has no figures", cell.id);
                let help = match cell.kind?.runs {
                    Runs::Program => {
                        "a command's figures are its outputs of type metrics: \
                         outputs = { figures = { file = \"figures.json\", type = \"metrics\" } }"
                    }
                    Runs::Worker | Runs::Runner => {
                        "guard a figure of the stage that measured it, such as an evaluate or a \
                         benchmark"
                    }
                };
                mistakes.push(spot.mistake("guard", message, "nothing to hold to").help(help));
                return None;
            }
            return Some(Baseline { stage: cell.id.clone(), metric: metric.to_owned() });
        }
        Ok(Reference::Stage { name, cell, port: None }) => {
            // Only to tell what is wrong with the stage too.
            names.cell(name, cell, &spot, mistakes)?;
            "the figure's name is missing"
        }
        Ok(Reference::Data(_)) => "a data set has no figures",
        Err(why) => why,
    };
    let message = format!("\"{}\" names no figure", spot.text);
    mistakes.push(spot.mistake("guard", message, why).help(FORM));
    None
}

/// Whether a stage gives figures; `None` if that is not known because of a mistake.
fn has_figures(cell: &RawCell) -> Option<bool> {
    let (kind, stage) = (cell.kind?, cell.stage.as_ref()?);
    Some(match kind.runs {
        // Each of them tells figures of its work.
        Runs::Worker => true,
        Runs::Program => stage.outputs().iter().any(|output| output.kind == PortType::Metrics),
        Runs::Runner => false,
    })
}
