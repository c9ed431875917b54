//! A sweep: the pipelines of several points as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pipeline::{Data, Origin, Pipeline, StageCell};

/// What `--set` options with several values make of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// What is varied, in the order of the options.
    pub variables: Vec<SweepVariable>,
    /// All combinations of values, the last variable changing fastest.
    pub points: Vec<Arc<Point>>,
}

/// A value that a sweep varies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepVariable {
    /// As short as it can be: `lr`.
    pub name: String,
    /// The key in the file: `params.lr`.
    pub key: String,
}

/// A combination of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What stands behind the `@` in the ids of its stages: `lr=0.1,epochs=2`.
    pub label: String,
    /// The variables' short names and their values, in the order of the options.
    pub values: Vec<(String, serde_json::Value)>,
}

/// One pipeline of a sweep's pipelines, one a point: what is identical in all points is there once.
/// The first point's stages come first, in file order.
pub(super) fn combine(sweep: Sweep, pipelines: Vec<Pipeline>) -> Pipeline {
    let shared_data = shared_data(&pipelines);
    let shared = shared_cells(&pipelines, &shared_data);
    let mut combined: Option<Pipeline> = None;
    for (point, mut pipeline) in sweep.points.iter().zip(pipelines) {
        let first = combined.is_none();
        let own = |name: &str| format!("{name}@{}", point.label);
        let mut data = BTreeMap::new();
        for (name, description) in std::mem::take(&mut pipeline.data) {
            match (shared_data.contains(&name), first) {
                (true, true) => data.insert(name, description),
                (true, false) => None,
                (false, _) => data.insert(own(&name), description),
            };
        }
        let mut stages = Vec::new();
        for mut cell in std::mem::take(&mut pipeline.stages) {
            if shared.contains(&cell.id) {
                if first {
                    stages.push(cell);
                }
                continue;
            }
            cell.id = own(&cell.id);
            for input in &mut cell.inputs {
                match &mut input.origin {
                    Origin::Stage { id, .. } if !shared.contains(id) => *id = own(id),
                    Origin::Data(name) if !shared_data.contains(name) => *name = own(name),
                    Origin::Stage { .. } | Origin::Data(_) | Origin::Path(_) => {}
                }
            }
            cell.point = Some(Arc::clone(point));
            stages.push(cell);
        }
        let combined = combined.get_or_insert(pipeline);
        combined.data.extend(data);
        combined.stages.extend(stages);
    }
    let mut combined = combined.expect("a sweep has points");
    combined.sweep = Some(sweep);
    combined
}

/// Names of the data sets that are the same in all points.
fn shared_data(pipelines: &[Pipeline]) -> BTreeSet<String> {
    let canonical = |data: &Data| serde_json::json!({ "spec": data.spec, "paths": data.paths });
    let (first, others) = pipelines.split_first().expect("a sweep has points");
    let same = |(name, data): &(&String, &Data)| {
        let data = canonical(data);
        let equal =
            |other: &Pipeline| other.data.get(*name).is_some_and(|it| canonical(it) == data);
        others.iter().all(equal)
    };
    first.data.iter().filter(same).map(|(name, _)| name.clone()).collect()
}

/// Ids of the cells that are identical in all points, with all that they are made from.
fn shared_cells(pipelines: &[Pipeline], data: &BTreeSet<String>) -> BTreeSet<String> {
    let (first, others) = pipelines.split_first().expect("a sweep has points");
    let others: Vec<BTreeMap<&str, &StageCell>> = others
        .iter()
        .map(|pipeline| pipeline.stages.iter().map(|cell| (cell.id.as_str(), cell)).collect())
        .collect();
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut shared = BTreeSet::new();
    let mut lost = Vec::new();
    for cell in &first.stages {
        let id = cell.id.as_str();
        for input in &cell.inputs {
            if let Origin::Stage { id: producer, .. } = &input.origin {
                users.entry(producer).or_default().push(id);
            }
        }
        let own_data = |name: &String| !data.contains(name);
        let differs = |input: &super::pipeline::ResolvedInput| matches!(&input.origin, Origin::Data(name) if own_data(name));
        let config = cell.stage.config();
        let same = |other: &&StageCell| same(cell, &config, other);
        if !cell.inputs.iter().any(differs)
            && others.iter().all(|other| other.get(id).is_some_and(same))
        {
            shared.insert(id.to_owned());
        } else {
            lost.push(id);
        }
    }
    // What is made from something that differs differs too. Candidates have the same inputs in all
    // points, so the first point's users are everyone's.
    while let Some(id) = lost.pop() {
        for &user in users.get(id).into_iter().flatten() {
            if shared.remove(user) {
                lost.push(user);
            }
        }
    }
    shared
}

/// Whether two cells are the same, apart from what their inputs hold.
fn same(cell: &StageCell, config: &serde_json::Value, other: &StageCell) -> bool {
    cell.kind.name == other.kind.name
        && cell.seed == other.seed
        && cell.cell == other.cell
        && cell.inputs == other.inputs
        && cell.secrets == other.secrets
        && *config == other.stage.config()
}
