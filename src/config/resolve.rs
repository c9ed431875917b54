//! Inputs of stages: references to outputs and data sets, paths of the user's files.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::lookup::{Spot, origin};
use super::mistakes::{Mistake, Sources};
use super::pipeline::{Origin, ResolvedInput};
use super::schema::{self, Link};
use super::stage::{RawCell, RawStage};
use super::tree::{Node, Place};
use crate::stages::contract::{Input, PortType, Runs, Source};
use crate::stages::report::Report;

/// Cells of a stage by their texts.
pub(super) type Cells<'p> = HashMap<&'p str, &'p RawCell>;

/// What inputs may refer to.
pub(super) struct Names<'p> {
    pub stages: &'p [RawStage],
    /// Names of all data sets, those with mistakes too.
    pub data: &'p [String],
    /// Paths are relative to the folder of the source that they stand in.
    pub sources: &'p Sources,
    /// Stages by name, each with its cells by their texts.
    pub by_name: HashMap<&'p str, (&'p RawStage, OnceCell<Cells<'p>>)>,
    /// The same names as `data`.
    pub data_set: HashSet<&'p str>,
}

/// Where it is not known what is accepted.
const ANY: &[PortType] = &[
    PortType::Data,
    PortType::Model,
    PortType::Ranges,
    PortType::Engine,
    PortType::Metrics,
    PortType::File,
];

fn is_report(cell: &RawCell) -> bool {
    cell.kind.is_some_and(|kind| kind.name == "report")
}

/// An input with its origin, and where it stands in the file.
pub(super) struct Connection {
    pub input: ResolvedInput,
    pub place: Place,
}

impl<'p> Names<'p> {
    pub fn new(stages: &'p [RawStage], data: &'p [String], sources: &'p Sources) -> Self {
        let named = |stage: &'p RawStage| (stage.name.as_str(), (stage, OnceCell::new()));
        let by_name = stages.iter().map(named).collect();
        let data_set = data.iter().map(String::as_str).collect();
        Self { stages, data, sources, by_name, data_set }
    }

    /// All inputs of a cell; those with mistakes are left out.
    pub fn connect(&self, cell: &RawCell, mistakes: &mut Vec<Mistake>) -> Vec<Connection> {
        let Some(stage) = &cell.stage else {
            self.check_links(cell, mistakes);
            return Vec::new();
        };
        let inputs = stage.inputs();
        if is_report(cell) {
            return self.report(cell, &inputs, mistakes);
        }
        let connect = |input: &Input| {
            let node = cell.tree.nearest(&input.field);
            let origin = match &input.source {
                Source::Path(path) => Origin::Path(self.path(cell, path, node, mistakes)?),
                Source::Reference(text) => {
                    self.one(&Spot { text, accepts: input.accepts, node }, mistakes)?
                }
            };
            let input = ResolvedInput { port: input.port.clone(), origin };
            Some(Connection { input, place: node.place })
        };
        inputs.iter().filter_map(connect).collect()
    }

    /// A path of a stage's table. Programs may take a folder, all others read files.
    fn path(
        &self,
        cell: &RawCell,
        path: &str,
        node: &Node,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<PathBuf> {
        let there = existing(self.sources, path, node, mistakes)?;
        let kind = cell.kind.filter(|kind| kind.runs != Runs::Program);
        let Some(kind) = kind.filter(|_| there.is_dir()) else { return Some(there) };
        let message = format!("\"{path}\" is a folder, and {} reads a file", kind.name);
        mistakes.push(
            Mistake::new("wrong-file", node.place, message, "expected a file")
                .also(node.from, "the value comes from here")
                .help("name the file in that folder"),
        );
        None
    }

    /// Checks what a stage refers to whose configuration has mistakes, as far as that is possible
    /// without knowing what it accepts where.
    fn check_links(&self, cell: &RawCell, mistakes: &mut Vec<Mistake>) {
        let (Some(kind), Some(table)) = (cell.kind, cell.tree.table()) else { return };
        for link in schema::links(schema::stage(kind), table) {
            match link {
                Link::Path(path, node) => {
                    self.path(cell, path, node, mistakes);
                }
                Link::Reference(text, node) if is_report(cell) => {
                    self.several(&Spot { text, accepts: ANY, node }, mistakes);
                }
                Link::Reference(text, node) => {
                    self.one(&Spot { text, accepts: ANY, node }, mistakes);
                }
            }
        }
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
            let found = self.several(&Spot { text, accepts: input.accepts, node }, mistakes);
            origins.extend(found.into_iter().map(|origin| (origin, node.place)));
        }
        self.check_baseline(cell, origins.iter().map(|(origin, _)| origin), mistakes);
        let connection = |(index, (origin, place))| {
            let input = ResolvedInput { port: format!("from.{index}"), origin };
            Connection { input, place }
        };
        origins.into_iter().enumerate().map(connection).collect()
    }

    /// The baseline of a report must be one of its rows, which are known before anything runs.
    fn check_baseline<'o>(
        &self,
        cell: &RawCell,
        origins: impl Iterator<Item = &'o Origin>,
        mistakes: &mut Vec<Mistake>,
    ) {
        let config = cell.stage.as_ref().and_then(|it| it.as_any().downcast_ref::<Report>());
        let Some((config, baseline)) = config.and_then(|it| Some((it, it.baseline.as_ref()?)))
        else {
            return;
        };
        let mut rows: Vec<String> = Vec::new();
        for origin in origins {
            let Origin::Stage { id, .. } = origin else { return };
            let of_stage = |stage: &'p RawStage| {
                let cells = stage.cells.as_ref()?;
                Some((stage, cells.iter().find(|cell| cell.id == *id)?))
            };
            let Some((stage, source)) = self.stages.iter().find_map(of_stage) else { return };
            let variables = source.combination.variables.iter();
            let variables: Vec<_> =
                variables.map(|(name, node)| (name.clone(), node.to_json())).collect();
            let row = config.row(&variables).unwrap_or_else(|| stage.name.clone());
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        // What else tells rows apart is known from the figures alone.
        let is_row = |row: &String| {
            baseline
                .strip_prefix(row.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
        };
        if rows.is_empty() || rows.iter().any(is_row) {
            return;
        }
        let node = cell.tree.nearest(&["baseline".to_owned()]);
        let message = format!("baseline \"{baseline}\" is no row of `{}`", cell.id);
        mistakes.push(
            Mistake::new(
                "no-row",
                node.place,
                message,
                "expected a value of the rows, or the name of a stage",
            )
            .also(node.from, "the value comes from here")
            .help(format!("rows: {}", rows.join(", "))),
        );
    }

    /// Figures of all evaluations, benchmarks and commands, in file order.
    fn figures(&self) -> impl Iterator<Item = Origin> {
        let cells = self.stages.iter().filter_map(|stage| stage.cells.as_ref()).flatten();
        let known = cells.filter_map(|cell| Some((cell, cell.kind?, cell.stage.as_ref()?)));
        known
            .filter(|(_, kind, _)| matches!(kind.name, "evaluate" | "benchmark" | "command"))
            .flat_map(|(cell, _, stage)| {
                let outputs = stage.outputs().into_iter();
                let figures = outputs.filter(|output| output.kind == PortType::Metrics);
                figures.map(|output| origin(cell, output))
            })
    }
}

/// The absolute path of a user's file or folder, which must be there.
pub(super) fn existing(
    sources: &Sources,
    path: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<PathBuf> {
    let absolute = sources.folder(node.home).join(path);
    let error = absolute.metadata().err().filter(|_| !path.is_empty());
    let message = match error {
        _ if path.is_empty() => "the path is empty".to_owned(),
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
