//! `[stages.NAME]` tables: kind, matrix, schema, contract.

use serde::Deserialize;

use super::interpolate::Interpolator;
use super::matrix::{self, Combination};
use super::mistakes::Mistake;
use super::schema;
use super::suggest::{list, nearest};
use super::tree::{Entry, Node, Place, Table, Value};
use crate::stages::contract::{Kind, Output, Problem, Runs, Stage};
use crate::stages::device::Device;
use crate::stages::execution::{Execution, ExecutionTable};

/// A `[stages.NAME]` table as far as it can be understood by itself.
pub(super) struct RawStage {
    pub name: String,
    /// Where its name stands.
    pub place: Place,
    pub has_matrix: bool,
    /// One without a matrix; `None` if the matrix is not known because of a mistake.
    pub cells: Option<Vec<RawCell>>,
}

/// A cell of a stage.
pub(super) struct RawCell {
    /// `onnx[fp32,1]`, or the stage's name.
    pub id: String,
    pub combination: Combination,
    /// Its table, interpolated, `kind` and `matrix` taken out.
    pub tree: Node,
    /// Its kind, where that is known.
    pub kind: Option<&'static Kind>,
    /// Its configuration; `None` if there were mistakes.
    pub stage: Option<Box<dyn Stage>>,
    /// Its outputs, where its configuration is known.
    pub outputs: Vec<Output>,
    /// How it is run.
    pub execution: Execution,
    /// Names of the secrets in its environment.
    pub secrets: Vec<String>,
}

impl RawCell {
    /// What stands between the brackets.
    pub fn text(&self) -> &str {
        &self.combination.text
    }
}

/// Whether a name can stand in references and file names; reports it if not.
pub(super) fn is_name(what: &str, name: &str, place: Place, mistakes: &mut Vec<Mistake>) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let good = !name.is_empty() && name.chars().all(letter);
    if !good {
        mistakes.push(
            Mistake::new("name", place, format!("\"{name}\" cannot name a {what}"), "here")
                .help("names consist of the letters a-z and A-Z, digits, `-` and `_`"),
        );
    }
    good
}

/// Reads a `[stages.NAME]` table; mistakes go to the interpolator's.
pub(super) fn read(entry: &Entry, reader: &mut Interpolator<'_>) -> RawStage {
    let name = entry.key.clone();
    is_name("stage", &name, entry.place, &mut reader.mistakes);
    if name == "data" {
        let mistake = Mistake::new("name", entry.place, "a stage cannot be called `data`", "here");
        reader.mistakes.push(
            mistake
                .help("references to it would look like those to data sets: choose another name"),
        );
    }
    let mut stage = RawStage { name, place: entry.place, has_matrix: false, cells: None };
    let Some(table) = entry.node.table() else {
        reader.mistakes.push(not_a_table("stages", entry));
        return stage;
    };
    let kind = kind(entry, table, reader);
    let matrix = table.get("matrix").map(|entry| reader.node(&entry.node));
    stage.has_matrix = matrix.is_some();
    let combinations = match &matrix {
        Some(matrix) => matrix::expand(&stage.name, matrix, &mut reader.mistakes),
        None => Some(vec![Combination::default()]),
    };
    let before = reader.mistakes.len();
    stage.cells = combinations.map(|combinations| {
        let cells = combinations.into_iter().map(|combination| {
            let start = reader.mistakes.len();
            reader.matrix = stage.has_matrix.then(|| combination.variables.clone());
            let cell = cell(&stage.name, entry, table, kind, combination, reader);
            drop_repeated(&mut reader.mistakes, before, start);
            cell
        });
        cells.collect()
    });
    reader.matrix = None;
    stage
}

/// Of the mistakes from `start` on, drops those that were already found from `before` on: another
/// cell of the same stage has made them at the same place.
pub(super) fn drop_repeated(mistakes: &mut Vec<Mistake>, before: usize, start: usize) {
    let new = mistakes.split_off(start);
    let known = before..start;
    for mistake in new {
        let same = |other: &Mistake| other.code == mistake.code && other.place() == mistake.place();
        if !mistakes[known.clone()].iter().any(same) {
            mistakes.push(mistake);
        }
    }
}

fn kind(entry: &Entry, table: &Table, reader: &mut Interpolator<'_>) -> Option<&'static Kind> {
    let names = || crate::stages::KINDS.iter().map(|kind| kind.name);
    let help = || format!("the kinds are {}", list(names(), "and"));
    let Some(given) = table.get("kind") else {
        let message = format!("stage `{}` has no `kind`", entry.key);
        let mistake = Mistake::new("missing-key", entry.place, message, "`kind` is missing");
        reader.mistakes.push(mistake.help(help()));
        return None;
    };
    let node = reader.node(&given.node);
    let mistake = match &node.value {
        Value::Broken => return None,
        Value::Text(word) => {
            if let Some(kind) = crate::stages::kind(word) {
                return Some(kind);
            }
            let label = nearest(word, names())
                .map_or_else(|| "not known".to_owned(), |near| format!("did you mean \"{near}\"?"));
            Mistake::new("unknown-kind", node.place, format!("unknown kind \"{word}\""), label)
        }
        _ => {
            let message = format!("the kind of stage `{}` is {}", entry.key, node.kind());
            Mistake::new("wrong-type", node.place, message, "expected a string")
        }
    };
    reader.mistakes.push(mistake.help(help()));
    None
}

fn cell(
    name: &str,
    entry: &Entry,
    table: &Table,
    kind: Option<&'static Kind>,
    combination: Combination,
    reader: &mut Interpolator<'_>,
) -> RawCell {
    let own = |entry: &&Entry| entry.key != "kind" && entry.key != "matrix";
    let start = reader.mistakes.len();
    let is_command = kind.is_none_or(|kind| kind.runs == Runs::Program);
    let mut secrets = Vec::new();
    let entries = table.entries.iter().filter(own).map(|entry| {
        let takes_secrets = is_command && entry.key == "env" && entry.node.table().is_some();
        reader.secrets = takes_secrets.then(Vec::new);
        let node = reader.node(&entry.node);
        secrets.extend(reader.secrets.take().into_iter().flatten());
        Entry { key: entry.key.clone(), place: entry.place, node }
    });
    let mut tree = Table { entries: entries.collect() };
    let (mut stage, mut execution) = (None, Execution::default());
    let tree = if let Some(kind) = kind {
        schema::write_out(schema::stage(kind), &mut tree);
        let path = format!("stages.{name}");
        schema::check(schema::stage(kind), &tree, &entry.node, &path, &mut reader.mistakes);
        let tree = Node::new(Value::Table(tree), entry.node.place);
        if reader.mistakes.len() == start && !tree.is_broken() {
            (stage, execution) = contract(kind, &tree, &mut reader.mistakes);
        }
        tree
    } else {
        Node::new(Value::Table(tree), entry.node.place)
    };
    let id = match combination.text.as_str() {
        "" => name.to_owned(),
        text => format!("{name}[{text}]"),
    };
    let outputs = stage.as_ref().map(|stage| stage.outputs()).unwrap_or_default();
    RawCell { id, combination, tree, kind, stage, outputs, execution, secrets }
}

fn contract(
    kind: &'static Kind,
    tree: &Node,
    mistakes: &mut Vec<Mistake>,
) -> (Option<Box<dyn Stage>>, Execution) {
    let mut own = toml::Table::new();
    let mut common = toml::Table::new();
    for entry in tree.table().into_iter().flat_map(|table| &table.entries) {
        let part = if ExecutionTable::has(&entry.key) { &mut common } else { &mut own };
        part.insert(entry.key.clone(), entry.node.to_toml());
    }
    let mut problems = Vec::new();
    let execution = match ExecutionTable::deserialize(common) {
        Ok(table) => Execution::read(&table, &mut problems),
        Err(error) => {
            mistakes.push(from_serde(tree, &error));
            Execution::default()
        }
    };
    let stage = match (kind.parse)(own.into()) {
        Ok(stage) => {
            // What a stage is connected to is known even where its rules are broken.
            problems.extend(stage.check());
            let gpus = execution.resources.as_ref().and_then(|resources| resources.gpus);
            problems.extend(Device::of(&stage.config()).and_then(|device| device.beyond(gpus)));
            Some(stage)
        }
        Err(error) => {
            mistakes.push(from_serde(tree, &error));
            None
        }
    };
    mistakes.extend(problems.into_iter().map(|problem| from_problem(tree, problem)));
    (stage, execution)
}

pub(super) fn from_problem(tree: &Node, problem: Problem) -> Mistake {
    let node = tree.nearest(&problem.field);
    let label = problem.label.unwrap_or_else(|| "here".to_owned());
    let mistake = Mistake::new("rule", node.place, problem.message, label)
        .also(node.from, "the value comes from here");
    match problem.help {
        Some(help) => mistake.help(help),
        None => mistake,
    }
}

pub(super) fn from_serde(tree: &Node, error: &toml::de::Error) -> Mistake {
    // A key itself is not given twice: that the syntax refuses.
    let twice =
        error.message().strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(key) = twice {
        let message = format!("`{key}` is given twice, under two names");
        return Mistake::new("wrong-type", tree.place, message, "in this table")
            .help(format!("write `{key}` alone"));
    }
    Mistake::new("wrong-type", tree.place, error.message().to_owned(), "in this table")
}

pub(super) fn not_a_table(above: &str, entry: &Entry) -> Mistake {
    let message = format!("`{above}.{}` is {}", entry.key, entry.node.kind());
    Mistake::new("wrong-type", entry.node.place, message, "expected a table")
        .help(format!("write a table [{above}.{}]", entry.key))
}
