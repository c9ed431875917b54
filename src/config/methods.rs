//! Ranges of a method that the stage which makes them does not compute: told before it runs.

use std::collections::HashMap;

use super::mistakes::Mistake;
use super::pipeline::Origin;
use super::resolve::Connection;
use super::stage::{self, RawCell, RawStage};
use crate::stages::calibrate::{Calibrate, Method};
use crate::stages::formats::ActivationType;
use crate::stages::insert_qdq::InsertQdq;
use crate::stages::search::Search;
use crate::stages::sensitivity::Sensitivity;

/// Reports stages whose `method` is none of the `calibrate` stage that their ranges come from; `connections` are those of all cells, stage by stage.
pub(super) fn check(
    stages: &[RawStage],
    connections: &[Vec<Connection>],
    mistakes: &mut Vec<Mistake>,
) {
    let all = || stages.iter().flat_map(|stage| stage.cells.iter().flatten());
    let cells: HashMap<&str, &RawCell> = all().map(|cell| (cell.id.as_str(), cell)).collect();
    let mut connections = connections.iter();
    for stage in stages {
        let before = mistakes.len();
        for cell in stage.cells.iter().flatten() {
            let start = mistakes.len();
            let Some(inputs) = connections.next() else { return };
            mistakes.extend(mistake(cell, inputs, &cells));
            stage::drop_repeated(mistakes, before, start);
        }
    }
}

fn mistake(
    cell: &RawCell,
    inputs: &[Connection],
    cells: &HashMap<&str, &RawCell>,
) -> Option<Mistake> {
    let method = method(cell)?;
    let ranges = inputs.iter().find(|connection| connection.input.port == "ranges")?;
    let Origin::Stage { id, .. } = &ranges.input.origin else { return None };
    let maker: &Calibrate = cells.get(id.as_str())?.stage.as_ref()?.as_any().downcast_ref()?;
    let methods = &maker.methods;
    // It computes all others to choose from.
    let computes_all = methods[..] == [Method::Best] && method != Method::Custom;
    if methods.contains(&method) || computes_all {
        return None;
    }
    let node = cell.tree.nearest(&["method".to_owned()]);
    let names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
    let message = format!("`{id}` computes no ranges of method \"{}\"", method.name());
    let label = format!("expected {}", names.join(", "));
    let help = match method {
        Method::Custom => "ranges of method \"custom\" are those of a program of your own (docs/ranges.md): `ranges` names its output then".to_owned(),
        _ => format!("add \"{}\" to `methods` of `{id}`", method.name()),
    };
    Some(
        Mistake::new("other-method", node.place, message, label)
            .also(node.from, "the value comes from here")
            .help(help),
    )
}

/// The method whose ranges of activations a stage takes.
fn method(cell: &RawCell) -> Option<Method> {
    let stage = cell.stage.as_ref()?.as_any();
    let (method, activations) = if let Some(config) = stage.downcast_ref::<InsertQdq>() {
        (config.method, config.activations)
    } else if let Some(config) = stage.downcast_ref::<Sensitivity>() {
        (config.method, config.activations)
    } else {
        (stage.downcast_ref::<Search>()?.method, None)
    };
    let float = activations.is_some_and(|it| it.dtype == Some(ActivationType::Float));
    (!float).then_some(method)
}
