//! Inputs of stages: references to outputs and data sets, paths of the user's files.

use std::path::{Path, PathBuf};

use super::mistakes::Mistake;
use super::pipeline::{Origin, ResolvedInput};
use super::reference::Reference;
use super::stage::{RawCell, RawStage};
use super::suggest::{did_you_mean, list, nearest};
use super::tree::{Node, Place};
use crate::stages::contract::{Input, Output, PortType, Source};

/// What inputs may refer to.
pub(super) struct Names<'p> {
    pub stages: &'p [RawStage],
    /// Names of all data sets, those with mistakes too.
    pub data: &'p [String],
    /// Paths are relative to this folder.
    pub folder: &'p Path,
}

/// An input with its origin, and where it stands in the file.
pub(super) struct Connection {
    pub input: ResolvedInput,
    pub place: Place,
}

impl Names<'_> {
    /// All inputs of a cell; those with mistakes are left out.
    pub fn connect(&self, cell: &RawCell, mistakes: &mut Vec<Mistake>) -> Vec<Connection> {
        let Some((kind, stage)) = &cell.stage else { return Vec::new() };
        let inputs = stage.inputs();
        if kind.name == "report" {
            return self.report(cell, &inputs, mistakes);
        }
        let connect = |input: &Input| {
            let node = cell.tree.nearest(&input.field);
            let origin = match &input.source {
                Source::Path(path) => {
                    Origin::Path(existing(self.folder, path, input, node, mistakes)?)
                }
                Source::Reference(text) => self.one(text, input, node, mistakes)?,
            };
            let input = ResolvedInput { port: input.port.clone(), origin };
            Some(Connection { input, place: node.place })
        };
        inputs.iter().filter_map(connect).collect()
    }

    /// A report's inputs: a reference may name all cells of a stage; without references it takes
    /// all figures of the pipeline.
    fn report(
        &self,
        cell: &RawCell,
        inputs: &[Input],
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<Connection> {
        let mut origins = Vec::new();
        if inputs.is_empty() {
            origins = self.figures().map(|origin| (origin, cell.tree.place)).collect();
            let all_known = self.stages.iter().all(|stage| {
                stage.cells.as_ref().is_some_and(|cells| cells.iter().all(|c| c.stage.is_some()))
            });
            if origins.is_empty() && all_known {
                let message = format!("`{}` has nothing to report", cell.id);
                mistakes.push(
                    Mistake::new("nothing-to-report", cell.tree.place, message, "no figures reach it")
                        .help("add a stage of kind \"evaluate\" or \"benchmark\", or a command with an output of type \"metrics\""),
                );
            }
        }
        for input in inputs {
            let node = cell.tree.nearest(&input.field);
            let Source::Reference(text) = &input.source else { continue };
            let found = self.several(text, input, node, mistakes);
            origins.extend(found.into_iter().map(|origin| (origin, node.place)));
        }
        let connection = |(index, (origin, place))| {
            let input = ResolvedInput { port: format!("from.{index}"), origin };
            Connection { input, place }
        };
        origins.into_iter().enumerate().map(connection).collect()
    }

    /// Figures of all evaluations, benchmarks and commands, in file order.
    fn figures(&self) -> impl Iterator<Item = Origin> {
        let cells = self.stages.iter().filter_map(|stage| stage.cells.as_ref()).flatten();
        let known = cells.filter_map(|cell| Some((cell, cell.stage.as_ref()?)));
        known
            .filter(|(_, (kind, _))| matches!(kind.name, "evaluate" | "benchmark" | "command"))
            .flat_map(|(cell, (_, stage))| {
                let outputs = stage.outputs().into_iter();
                let figures = outputs.filter(|output| output.kind == PortType::Metrics);
                figures.map(|output| origin(cell, output))
            })
    }

    /// The origin of an input that takes exactly one.
    fn one(
        &self,
        text: &str,
        input: &Input,
        node: &Node,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Origin> {
        let spot = Spot { text, input, node };
        match spot.parse(mistakes)? {
            Reference::Data(name) => self.data(name, &spot, mistakes),
            Reference::Stage { name, cell, port } => {
                let stage = self.stage(name, &spot, mistakes)?;
                let cell = match cell {
                    Some(cell) => one_cell(stage, cell, &spot, mistakes)?,
                    None if stage.has_matrix => {
                        let cells = stage.cells.as_ref()?;
                        let message = format!("`{name}` has {} cells", cells.len());
                        let mistake = spot.mistake("unknown-cell", message, "which one?");
                        mistakes.push(mistake.help(cells_help(stage, cells)));
                        return None;
                    }
                    None => stage.cells.as_ref()?.first()?,
                };
                output(cell, port, &spot, mistakes)
            }
        }
    }

    /// The origins of an input that takes all cells of a stage where none is named.
    fn several(
        &self,
        text: &str,
        input: &Input,
        node: &Node,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<Origin> {
        let spot = Spot { text, input, node };
        if let Ok(Reference::Stage { name, cell: None, port }) = Reference::parse(text)
            && let Some(stage) = self.stages.iter().find(|stage| stage.name == name)
        {
            let before = mistakes.len();
            let cells = stage.cells.iter().flatten();
            return cells
                .filter_map(|cell| {
                    let start = mistakes.len();
                    let origin = output(cell, port, &spot, mistakes);
                    super::stage::drop_repeated(mistakes, before, start);
                    origin
                })
                .collect();
        }
        self.one(text, input, node, mistakes).into_iter().collect()
    }

    fn data(&self, name: &str, spot: &Spot<'_>, mistakes: &mut Vec<Mistake>) -> Option<Origin> {
        let names = || self.data.iter().map(String::as_str);
        if !names().any(|known| known == name) {
            let message = format!("unknown data set `{name}`");
            let label = did_you_mean(name, names(), "not in the file");
            let help = format!("the data sets are {}", list(names(), "and"));
            mistakes.push(spot.mistake("unknown-data", message, label).help(help));
            return None;
        }
        if !spot.input.accepts.contains(&PortType::Data) {
            let message = format!("`data.{name}` is a data set, not {}", spot.accepted());
            let label = format!("expected {}", spot.accepted());
            mistakes.push(spot.mistake("wrong-port-type", message, label));
            return None;
        }
        Some(Origin::Data(name.to_owned()))
    }

    fn stage(&self, name: &str, spot: &Spot<'_>, mistakes: &mut Vec<Mistake>) -> Option<&RawStage> {
        let found = self.stages.iter().find(|stage| stage.name == name);
        if found.is_none() {
            let names = || self.stages.iter().map(|stage| stage.name.as_str());
            let is_data = self.data.iter().any(|data| data == name);
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
}

/// A reference and where it stands.
struct Spot<'s> {
    text: &'s str,
    input: &'s Input,
    node: &'s Node,
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

    fn mistake(&self, code: &'static str, message: String, label: impl Into<String>) -> Mistake {
        Mistake::new(code, self.node.place, message, label)
            .also(self.node.from, "the value comes from here")
    }

    /// What may be connected here: `a model`, `a data set`.
    fn accepted(&self) -> String {
        let names: Vec<&str> = self.input.accepts.iter().map(|kind| noun(*kind)).collect();
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

fn origin(cell: &RawCell, output: Output) -> Origin {
    Origin::Stage { id: cell.id.clone(), port: output.port, kind: output.kind }
}

fn one_cell<'p>(
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
    let found = cells.iter().find(|cell| cell.text() == text);
    if found.is_none() {
        let message = format!("`{}` has no cell `{text}`", stage.name);
        let label = did_you_mean(text, cells.iter().map(RawCell::text), "no such cell");
        mistakes.push(spot.mistake("unknown-cell", message, label).help(cells_help(stage, cells)));
    }
    found
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
    let outputs = cell.stage.as_ref()?.1.outputs();
    let accepts = spot.input.accepts;
    let help = || {
        let ports: Vec<String> =
            outputs.iter().map(|output| format!("{}.{}", cell.id, output.port)).collect();
        let ports = ports.iter().zip(&outputs);
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

/// The absolute path of a user's file or folder, which must be there.
pub(super) fn existing(
    folder: &Path,
    path: &str,
    input: &Input,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<PathBuf> {
    let absolute = folder.join(path);
    let error = absolute.metadata().err().filter(|_| !path.is_empty());
    let message = match error {
        _ if path.is_empty() => format!("`{}` is an empty path", input.field.join(".")),
        None => return Some(absolute),
        Some(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("there is no file or folder \"{path}\"")
        }
        Some(error) => format!("\"{path}\" cannot be read: {error}"),
    };
    mistakes.push(
        Mistake::new("missing-file", node.place, message, "not found")
            .also(node.from, "the value comes from here")
            .help(format!("looked for {}", absolute.display())),
    );
    None
}
