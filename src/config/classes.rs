//! Data sets whose classes are numbered otherwise than those that a model learned: its accuracy on them would be that of other labels.
//!
//! The classes of a folder are the folders in it, sorted by name, so that a class without a folder in one of two data sets moves all
//! that follow it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::mistakes::Mistake;
use super::pipeline::{Data, Origin};
use super::resolve::Connection;
use super::stage::{self, RawCell, RawStage};
use crate::stages::data::{DataFormat, DataSpec};
use crate::stages::evaluate::{Evaluate, Task};
use crate::stages::{image_files, table};

/// The classes of a data set.
enum Classes {
    /// In the order of their indices.
    Named(Vec<String>),
    /// Labels are numbers.
    Numbered,
}

impl Classes {
    /// `None`: there are none, or they cannot be told; the stage that reads them says why.
    fn of(data: &Data) -> Option<Self> {
        let DataSpec { format, classes, .. } = &data.spec;
        if let Some(classes) = classes {
            return Some(Self::Named(classes.clone()));
        }
        let path = data.paths.get("path")?;
        match format {
            DataFormat::Idx => Some(Self::Numbered),
            DataFormat::Images => None,
            DataFormat::ImageFolder => {
                let found = image_files::class_folders(path).ok()?;
                (!found.is_empty()).then_some(Self::Named(found))
            }
            DataFormat::Csv => {
                let rows = table::read(path).ok()?;
                match table::unnamed(&rows) {
                    true => Some(Self::Numbered),
                    false => Some(Self::Named(table::resolve(&rows, None).ok()?.0)),
                }
            }
        }
    }

    /// The name of a class; a number is its own.
    fn name(&self, index: usize) -> Option<String> {
        match self {
            Self::Named(names) => names.get(index).cloned(),
            Self::Numbered => Some(index.to_string()),
        }
    }

    /// The first index that means another class here than there.
    fn conflict(&self, other: &Self) -> Option<(usize, String, String)> {
        let known = |classes: &Self| match classes {
            Self::Named(names) => names.len(),
            Self::Numbered => 0,
        };
        (0..known(self).max(known(other))).find_map(|index| {
            let (here, there) = (self.name(index)?, other.name(index)?);
            // On some systems folders come back with other capitals.
            (here.to_lowercase() != there.to_lowercase()).then_some((index, here, there))
        })
    }
}

/// Classes of data sets, each looked up once.
struct Known<'p> {
    data: &'p BTreeMap<String, Data>,
    classes: BTreeMap<&'p str, OnceCell<Option<Classes>>>,
}

impl Known<'_> {
    fn get(&self, name: &str) -> Option<&Classes> {
        let data = self.data.get(name)?;
        self.classes.get(name)?.get_or_init(|| Classes::of(data)).as_ref()
    }
}

type Cells<'p> = BTreeMap<&'p str, (&'p RawCell, &'p [Connection])>;

/// Reports data sets whose classes are others than those a stage's model learned; `connections` are those of all cells, stage by stage.
pub(super) fn check(
    stages: &[RawStage],
    connections: &[Vec<Connection>],
    data: &BTreeMap<String, Data>,
    mistakes: &mut Vec<Mistake>,
) {
    let all = stages.iter().flat_map(|stage| stage.cells.iter().flatten());
    let cells: Cells = all
        .zip(connections)
        .map(|(cell, inputs)| (cell.id.as_str(), (cell, inputs.as_slice())))
        .collect();
    let classes = data.keys().map(|name| (name.as_str(), OnceCell::new())).collect();
    let known = Known { data, classes };
    for stage in stages {
        let before = mistakes.len();
        for cell in stage.cells.iter().flatten() {
            let start = mistakes.len();
            let Some((_, inputs)) = cells.get(cell.id.as_str()) else { continue };
            let learned = learned(cell, inputs, &cells);
            for port in counted(cell) {
                let Some((name, place)) = data_at(inputs, port) else { continue };
                let Some((teacher, learned)) = learned.filter(|(_, set)| *set != name) else {
                    continue;
                };
                let (Some(here), Some(there)) = (known.get(name), known.get(learned)) else {
                    continue;
                };
                let Some((index, one, other)) = here.conflict(there) else { continue };
                let message = format!(
                    "class {index} is \"{one}\" in `data.{name}`, and \"{other}\" in `data.{learned}`, from which `{teacher}` learns",
                );
                mistakes.push(
                    Mistake::new("other-classes", place, message, "its labels mean other classes")
                        .help(help(there)),
                );
            }
            stage::drop_repeated(mistakes, before, start);
        }
    }
}

/// What to do about it: `learned` are the classes that are meant.
fn help(learned: &Classes) -> String {
    match learned {
        Classes::Named(names) if names.len() <= 10 => format!(
            "classes are folders or labels sorted by name, unless they are listed: give each data set classes = {names:?}; a class \
             folder may be empty then"
        ),
        _ => "classes are folders or labels sorted by name, unless they are listed: give each data set the same `classes`; a class \
              folder may be empty then"
            .to_owned(),
    }
}

/// The inputs of a cell whose labels it holds against a model's outputs.
fn counted(cell: &RawCell) -> &'static [&'static str] {
    let evaluate = cell.stage.as_ref().and_then(|stage| stage.as_any().downcast_ref::<Evaluate>());
    match (cell.kind.map(|kind| kind.name), evaluate) {
        (Some("train"), _) => &["valid"],
        (Some("finetune"), _) => &["train", "valid"],
        (Some("sensitivity" | "search"), _) => &["data"],
        (_, Some(evaluate)) if evaluate.task == Task::Classification => &["data"],
        _ => &[],
    }
}

fn data_at<'p>(inputs: &'p [Connection], port: &str) -> Option<(&'p str, super::tree::Place)> {
    let input = inputs.iter().find(|connection| connection.input.port == port)?;
    match &input.input.origin {
        Origin::Data(name) => Some((name, input.place)),
        _ => None,
    }
}

/// The stage that trained a cell's model first, and its data set: the cell itself if that is `train`. A model that was fine-tuned has
/// the classes it had before.
fn learned<'p>(
    cell: &'p RawCell,
    inputs: &'p [Connection],
    cells: &Cells<'p>,
) -> Option<(&'p str, &'p str)> {
    let (mut cell, mut inputs) = (cell, inputs);
    let mut found = None;
    // A cycle is reported elsewhere.
    for _ in 0..=cells.len() {
        let kind = cell.kind?.name;
        if let Some((name, _)) = data_at(inputs, "train") {
            found = Some((cell.id.as_str(), name));
        }
        if kind == "train" || kind == "command" {
            return found;
        }
        let models = inputs
            .iter()
            .find(|connection| matches!(connection.input.port.as_str(), "model" | "engine"));
        let Some(Origin::Stage { id, .. }) = models.map(|model| &model.input.origin) else {
            return found;
        };
        (cell, inputs) = *cells.get(id.as_str())?;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Classes {
        Classes::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn an_index_has_to_mean_one_class() {
        let three = named(&["bar", "circle", "cross"]);
        let conflict = |one: &Classes| one.conflict(&three).map(|(index, ..)| index);
        assert_eq!(conflict(&named(&["circle", "cross"])), Some(0));
        assert_eq!(conflict(&named(&["bar", "cross"])), Some(1));
        assert_eq!(conflict(&named(&["bar", "circle"])), None);
        assert_eq!(conflict(&named(&["Bar", "circle", "cross", "square"])), None);
        assert_eq!(conflict(&Classes::Numbered), Some(0));
        // Folders named by numbers: "10" is sorted before "2".
        assert_eq!(Classes::Numbered.conflict(&named(&["0", "1", "10", "2"])).unwrap().0, 2);
        assert!(Classes::Numbered.conflict(&named(&["0", "1", "2"])).is_none());
        assert!(Classes::Numbered.conflict(&Classes::Numbered).is_none());
    }
}
