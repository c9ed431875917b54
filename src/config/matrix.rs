//! `matrix = { a = […], b = […] }`: a stage becomes a cell for each combination.

use std::collections::HashSet;

use super::matrix_entries;
use super::mistakes::Mistake;
use super::tree::{Node, Value};

/// More cells than this are a slip.
const LIMIT: usize = 10_000;

/// One combination of values.
#[derive(Clone, Debug, Default)]
pub(super) struct Combination {
    /// What stands between the brackets of the cell's id: `fp32,1`.
    pub text: String,
    /// The variables, in file order.
    pub variables: Vec<(String, Node)>,
}

/// A variable: its name, and its values with their texts.
pub(super) struct Variable {
    pub name: String,
    pub values: Vec<(String, Node)>,
}

/// All combinations, the last variable changing fastest, then those of `include`; `None` where a
/// mistake was found. None at all where a variable's values come from elsewhere and are none: so a
/// parameter or a profile leaves a stage out.
pub(super) fn expand(
    stage: &str,
    matrix: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Combination>> {
    const FORM: &str = "write matrix = { variant = [\"fp32\", \"qat\"], batch = [1, 32] }";
    let table = match &matrix.value {
        Value::Table(table) => table,
        Value::Broken => return None,
        _ => {
            let message = format!("the matrix of `{stage}` is {}", matrix.kind());
            mistakes.push(
                Mistake::new("matrix", matrix.place, message, "expected a table of arrays")
                    .also(matrix.from, "the value comes from here")
                    .help(FORM),
            );
            return None;
        }
    };
    let mut variables = Vec::new();
    let mut sound = true;
    for entry in table.entries.iter().filter(|entry| !matrix_entries::is_list(&entry.key)) {
        sound &= super::stage::is_name("matrix variable", &entry.key, entry.place, mistakes);
        match values(stage, &entry.key, &entry.node, mistakes) {
            Some(values) => variables.push(Variable { name: entry.key.clone(), values }),
            None => sound = false,
        }
    }
    if !sound {
        return None;
    }
    if variables.is_empty() {
        let message = format!("the matrix of `{stage}` has no variables");
        mistakes.push(Mistake::new("empty-matrix", matrix.place, message, "empty").help(FORM));
        return None;
    }
    let picks = product(&variables);
    if picks.len() > LIMIT {
        let message = format!("the matrix of `{stage}` has more than {LIMIT} cells");
        let help = "each combination of values is a stage of its own: use fewer variables";
        mistakes.push(Mistake::new("matrix", matrix.place, message, "too many").help(help));
        return None;
    }
    if picks.is_empty() && !matrix_entries::has_more(table) {
        return Some(Vec::new());
    }
    let combinations = matrix_entries::apply(stage, matrix, table, &variables, &picks, mistakes)?;
    let mut ids: Vec<&str> = combinations.iter().map(|cell| cell.text.as_str()).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("two cells would be called `{stage}[{}]`", twice[0]);
        mistakes.push(
            Mistake::new("duplicate", matrix.place, message, "these values run together")
                .help("values that hold a comma can make two combinations look alike: rename one"),
        );
        return None;
    }
    Some(combinations)
}

/// All combinations as a position in the values of each variable; one more than the limit is
/// enough to know that there are too many.
fn product(variables: &[Variable]) -> Vec<Vec<usize>> {
    let mut picks = vec![Vec::new()];
    for variable in variables {
        let and = |before: &Vec<usize>, value| before.iter().copied().chain([value]).collect();
        picks = picks
            .iter()
            .flat_map(|before| (0..variable.values.len()).map(move |value| and(before, value)))
            .take(LIMIT + 1)
            .collect();
    }
    picks
}

impl Combination {
    /// Of a value for each variable.
    pub fn new<'v>(values: impl Iterator<Item = (&'v str, &'v (String, Node))>) -> Self {
        let mut combination = Self::default();
        for (variable, (text, node)) in values {
            if !combination.variables.is_empty() {
                combination.text.push(',');
            }
            combination.text.push_str(text);
            combination.variables.push((variable.to_owned(), node.clone()));
        }
        combination
    }
}

/// The values of a variable and their texts.
fn values(
    stage: &str,
    variable: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<(String, Node)>> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes,
        Value::Broken => return None,
        _ => {
            let message = format!("matrix variable `{variable}` of `{stage}` is {}", node.kind());
            let help = format!("write {variable} = [ … ]");
            mistakes.push(at(node, "matrix", message, "expected an array").help(help));
            return None;
        }
    };
    if nodes.is_empty() && node.from.is_none() {
        let message = format!("matrix variable `{variable}` of `{stage}` has no values");
        let help = "without a value the stage would not exist: give at least one, or remove the stage; a parameter may be an empty list";
        mistakes.push(at(node, "empty-matrix", message, "empty").help(help));
        return None;
    }
    let mut values: Vec<(String, Node)> = Vec::new();
    let mut seen = HashSet::new();
    for node in nodes {
        let text = value_text(stage, variable, node, mistakes)?;
        if !seen.insert(text.clone()) {
            let message = format!("matrix variable `{variable}` of `{stage}` has `{text}` twice");
            let help = "each value makes a cell of its own: remove one";
            mistakes.push(at(node, "duplicate", message, "again").help(help));
            return None;
        }
        values.push((text, node.clone()));
    }
    Some(values)
}

/// What a value adds to the names of cells; `None` where it cannot.
pub(super) fn value_text(
    stage: &str,
    variable: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<String> {
    if node.is_broken() {
        return None;
    }
    let Some(text) = node.scalar() else {
        let message = format!("a value of matrix variable `{variable}` is {}", node.kind());
        let label = "expected a string, a number or a boolean";
        mistakes.push(at(node, "matrix", message, label).help(
            "a cell is named after its values: name variants, and look up what they stand for elsewhere",
        ));
        return None;
    };
    if let Some(sign) = text.chars().find(|letter| letter.is_control()) {
        let sign = sign.escape_unicode();
        let message = format!("{text:?} cannot name a cell of `{stage}`: it holds {sign}");
        let help = "cells are shown in lines, and their artifacts in folders of their names: no line breaks, tabs or other control characters";
        mistakes.push(at(node, "matrix", message, "here").help(help));
        return None;
    }
    if text.is_empty() || !balanced(&text) {
        let message = format!("\"{text}\" cannot name a cell of `{stage}`");
        let help = "a value is not empty, and its brackets come in pairs";
        mistakes.push(at(node, "matrix", message, "here").help(help));
        return None;
    }
    Some(text)
}

/// A mistake of a value.
pub(super) fn at(node: &Node, code: &'static str, message: String, label: &str) -> Mistake {
    Mistake::new(code, node.place, message, label).also(node.from, "the value comes from here")
}

fn balanced(text: &str) -> bool {
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '[' => depth += 1,
            ']' if depth == 0 => return false,
            ']' => depth -= 1,
            _ => {}
        }
    }
    depth == 0
}
