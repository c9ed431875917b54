//! What a reference stands for.

use super::mistakes::Mistake;
use super::pipeline::Origin;
use super::reference::Reference;
use super::resolve::Names;
use super::stage::{RawCell, RawStage};
use super::suggest::{did_you_mean, list, nearest};
use super::tree::Node;
use crate::stages::contract::{Output, PortType};

impl<'p> Names<'p> {
    /// The origin of an input that takes exactly one.
    pub fn one(&self, spot: &Spot<'_>, mistakes: &mut Vec<Mistake>) -> Option<Origin> {
        match spot.parse(mistakes)? {
            Reference::Data(name) => self.data(name, spot, mistakes),
            Reference::Stage { name, cell, port } => {
                let cell = self.cell(name, cell, spot, mistakes)?;
                output(cell, port, spot, mistakes)
            }
        }
    }

    /// The stage of that name, or the cell of it.
    pub fn cell(
        &self,
        name: &str,
        cell: Option<&str>,
        spot: &Spot<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<&'p RawCell> {
        let stage = self.stage(name, spot, mistakes)?;
        match cell {
            Some(cell) => self.one_cell(stage, cell, spot, mistakes),
            None if stage.has_matrix => {
                let cells = stage.cells.as_ref()?;
                if cells.is_empty() {
                    mistakes.push(left_out(stage, spot));
                    return None;
                }
                let message = format!("`{name}` has {} cells", cells.len());
                let mistake = spot.mistake("unknown-cell", message, "which one?");
                mistakes.push(mistake.help(cells_help(stage, cells)));
                None
            }
            None => stage.cells.as_ref()?.first(),
        }
    }

    /// The origins of an input that takes all cells of a stage where none is named.
    pub fn several(&self, spot: &Spot<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Origin> {
        if let Ok(Reference::Stage { name, cell: None, port }) = Reference::parse(spot.text)
            && let Some((stage, _)) = self.by_name.get(name)
        {
            let before = mistakes.len();
            let cells = stage.cells.iter().flatten();
            return cells
                .filter_map(|cell| {
                    let start = mistakes.len();
                    let origin = output(cell, port, spot, mistakes);
                    super::stage::drop_repeated(mistakes, before, start);
                    origin
                })
                .collect();
        }
        self.one(spot, mistakes).into_iter().collect()
    }

    fn data(&self, name: &str, spot: &Spot<'_>, mistakes: &mut Vec<Mistake>) -> Option<Origin> {
        let names = || self.data.iter().map(String::as_str);
        if !self.data_set.contains(name) {
            let message = format!("unknown data set `{name}`");
            let label = did_you_mean(name, names(), "not in the file");
            let help = format!("the data sets are {}", list(names(), "and"));
            mistakes.push(spot.mistake("unknown-data", message, label).help(help));
            return None;
        }
        if !spot.accepts.contains(&PortType::Data) {
            let message = format!("`data.{name}` is a data set, not {}", spot.accepted());
            let label = format!("expected {}", spot.accepted());
            mistakes.push(spot.mistake("wrong-port-type", message, label));
            return None;
        }
        Some(Origin::Data(name.to_owned()))
    }

    fn stage(
        &self,
        name: &str,
        spot: &Spot<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<&'p RawStage> {
        let found = self.by_name.get(name).map(|(stage, _)| *stage);
        if found.is_none() {
            let names = || self.stages.iter().map(|stage| stage.name.as_str());
            let is_data = self.data_set.contains(name);
            let label = if is_data {
                format!("did you mean `data.{name}`?")
            } else {
                did_you_mean(name, names(), "not in the file")
            };
            let message = format!("unknown stage `{name}`");
            let help = match nearest(name, names()) {
                _ if is_data => format!("data sets are called data.NAME: \"data.{name}\""),
                _ => format!("the stages are {}", list(names(), "and")),
            };
            mistakes.push(spot.mistake("unknown-stage", message, label).help(help));
        }
        found
    }

    fn one_cell(
        &self,
        stage: &'p RawStage,
        text: &str,
        spot: &Spot<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<&'p RawCell> {
        let cells = stage.cells.as_ref()?;
        if !stage.has_matrix {
            let message = format!("`{}` has no matrix, so it has no cell `{text}`", stage.name);
            let mistake = spot.mistake("unknown-cell", message, "no such cell");
            mistakes.push(mistake.help(format!("write \"{}\" without brackets", stage.name)));
            return None;
        }
        if cells.is_empty() {
            mistakes.push(left_out(stage, spot));
            return None;
        }
        let (_, by_text) = self.by_name.get(stage.name.as_str())?;
        let by_text =
            by_text.get_or_init(|| cells.iter().map(|cell| (cell.text(), cell)).collect());
        let found = by_text.get(text).copied();
        if found.is_none() {
            let message = format!("`{}` has no cell `{text}`", stage.name);
            let label = did_you_mean(text, cells.iter().map(RawCell::text), "no such cell");
            let mistake = spot.mistake("unknown-cell", message, label);
            mistakes.push(mistake.help(cells_help(stage, cells)));
        }
        found
    }
}

/// A reference and where it stands.
pub(super) struct Spot<'s> {
    pub text: &'s str,
    /// What may be connected here.
    pub accepts: &'s [PortType],
    pub node: &'s Node,
}

impl<'s> Spot<'s> {
    fn parse(&self, mistakes: &mut Vec<Mistake>) -> Option<Reference<'s>> {
        Reference::parse(self.text)
            .map_err(|why| {
                let message = format!("\"{}\" is not a reference", self.text);
                mistakes.push(
                    self.mistake("reference", message, why)
                        .help("write STAGE, STAGE.PORT, STAGE[CELL].PORT or data.NAME"),
                );
            })
            .ok()
    }

    pub fn mistake(
        &self,
        code: &'static str,
        message: String,
        label: impl Into<String>,
    ) -> Mistake {
        Mistake::new(code, self.node.place, message, label)
            .also(self.node.from, "the value comes from here")
    }

    /// What may be connected here: `a model`, `a data set`.
    fn accepted(&self) -> String {
        let names: Vec<&str> = self.accepts.iter().map(|kind| noun(*kind)).collect();
        names.join(" or ")
    }
}

/// A port's type with its article.
fn noun(kind: PortType) -> &'static str {
    match kind {
        PortType::Data => "a data set",
        PortType::Model => "a model",
        PortType::Ranges => "ranges",
        PortType::Engine => "an engine",
        PortType::Metrics => "metrics",
        PortType::File => "a file",
    }
}

pub(super) fn origin(cell: &RawCell, output: Output) -> Origin {
    Origin::Stage { id: cell.id.clone(), port: output.port, kind: output.kind }
}

/// Of a stage whose matrix has no values, since a parameter says so.
fn left_out(stage: &RawStage, spot: &Spot<'_>) -> Mistake {
    let message = format!("`{}` is left out: its matrix has no values", stage.name);
    let help = "leave out what reads it too, by the same parameter in its matrix, or give values";
    spot.mistake("unknown-cell", message, "reads it").help(help)
}

fn cells_help(stage: &RawStage, cells: &[RawCell]) -> String {
    const SHOWN: usize = 12;
    let ids: Vec<String> =
        cells.iter().take(SHOWN).map(|cell| format!("{}[{}]", stage.name, cell.text())).collect();
    let names = list(ids.iter().map(String::as_str), "and");
    match cells.len() {
        0..=SHOWN => format!("the cells are {names}"),
        count => format!("the first of its {count} cells are {names}"),
    }
}

/// The output that a reference means.
fn output(
    cell: &RawCell,
    port: Option<&str>,
    spot: &Spot<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Origin> {
    cell.stage.as_ref()?;
    let outputs = &cell.outputs;
    let accepts = spot.accepts;
    let help = || {
        let ports: Vec<String> =
            outputs.iter().map(|output| format!("{}.{}", cell.id, output.port)).collect();
        let ports = ports.iter().zip(outputs);
        let ports: Vec<String> =
            ports.map(|(port, output)| format!("`{port}` ({})", output.kind.name())).collect();
        format!("the outputs of `{}` are {}", cell.id, ports.join(", "))
    };
    let Some(port) = port else {
        let fitting = outputs.iter().find(|output| accepts.contains(&output.kind));
        if fitting.is_none() {
            let message = format!("no output of `{}` is {}", cell.id, spot.accepted());
            let label = format!("expected {}", spot.accepted());
            mistakes.push(spot.mistake("wrong-port-type", message, label).help(help()));
        }
        return fitting.map(|output| origin(cell, output.clone()));
    };
    let Some(output) = outputs.iter().find(|output| output.port == port) else {
        let message = format!("`{}` has no output `{port}`", cell.id);
        let names = outputs.iter().map(|output| output.port.as_str());
        let label = did_you_mean(port, names, "no such output");
        mistakes.push(spot.mistake("unknown-port", message, label).help(help()));
        return None;
    };
    if !accepts.contains(&output.kind) {
        let (name, found) = (&cell.id, noun(output.kind));
        let message = format!("`{name}.{port}` is {found}, not {}", spot.accepted());
        let label = format!("expected {}", spot.accepted());
        mistakes.push(spot.mistake("wrong-port-type", message, label).help(help()));
        return None;
    }
    Some(origin(cell, output.clone()))
}
