//! Stages that learn from labels, or count by them, and data sets that have none.

use std::collections::BTreeMap;

use super::mistakes::Mistake;
use super::pipeline::{Data, Origin};
use super::resolve::Connection;
use super::stage::{self, RawCell, RawStage};
use crate::stages::data::DataFormat;
use crate::stages::evaluate::{Evaluate, Task};

/// The inputs of a cell whose labels it reads.
fn ports(cell: &RawCell) -> &'static [&'static str] {
    let evaluate = cell.stage.as_ref().and_then(|stage| stage.as_any().downcast_ref::<Evaluate>());
    match (cell.kind.map(|kind| kind.name), evaluate) {
        (Some("train" | "finetune"), _) => &["train", "valid"],
        (_, Some(evaluate)) if evaluate.task == Task::Classification => &["data"],
        _ => &[],
    }
}

/// Reports data sets without labels where labels are needed; `connections` are those of all cells, stage by stage.
pub(super) fn check(
    stages: &[RawStage],
    connections: &[Vec<Connection>],
    data: &BTreeMap<String, Data>,
    mistakes: &mut Vec<Mistake>,
) {
    let mut connections = connections.iter();
    for stage in stages {
        let before = mistakes.len();
        for cell in stage.cells.iter().flatten() {
            let start = mistakes.len();
            for connection in connections.next().into_iter().flatten() {
                let Origin::Data(name) = &connection.input.origin else { continue };
                let unlabelled =
                    data.get(name).is_some_and(|data| data.spec.format == DataFormat::Images);
                if !unlabelled || !ports(cell).contains(&connection.input.port.as_str()) {
                    continue;
                }
                let message = format!("`{}` needs labels, and `data.{name}` has none", stage.name);
                let mistake = Mistake::new(
                    "no-labels",
                    connection.place,
                    message,
                    "format \"images\" is without labels",
                );
                let help = match cell.kind.map(|kind| kind.name) {
                    Some("evaluate") => {
                        "give it labelled data; of a detector, task = \"detection\" compares boxes with those of the float model"
                    }
                    _ => "give it data of format \"image-folder\", \"csv\" or \"idx\"",
                };
                mistakes.push(mistake.help(help));
            }
            stage::drop_repeated(mistakes, before, start);
        }
    }
}
