//! `exclude = [{ … }]` and `include = [{ … }]` of a matrix, as GitHub Actions has them
//! (<https://docs.github.com/actions/using-jobs/using-a-matrix-for-your-jobs>), except that an
//! included cell has exactly the variables of the others: what it is called would be unclear
//! otherwise.

use super::matrix::{Combination, Variable, at, value_text};
use super::mistakes::Mistake;
use super::suggest::{did_you_mean, list};
use super::tree::{Node, Table, Value};

const EXCLUDE: &str = "exclude";
const INCLUDE: &str = "include";

/// Whether a key of a matrix is a list of cells, not a variable.
pub(super) fn is_list(key: &str) -> bool {
    key == EXCLUDE || key == INCLUDE
}

/// The combinations that are left, then those added. `picks`: a position in the values of each
/// variable. `None` where a mistake was found.
pub(super) fn apply(
    stage: &str,
    matrix: &Node,
    table: &Table,
    variables: &[Variable],
    picks: &[Vec<usize>],
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Combination>> {
    let mut left = vec![true; picks.len()];
    let mut sound = true;
    let excluded = entries(stage, EXCLUDE, table, mistakes)?;
    for (node, entry) in &excluded {
        match exclude(stage, node, entry, variables, mistakes) {
            // Of all combinations: what another entry excludes too is no mistake.
            Some(wanted) => {
                let matches = |pick: &[usize]| wanted.iter().all(|(at, value)| pick[*at] == *value);
                for (left, _) in left.iter_mut().zip(picks).filter(|(_, pick)| matches(pick)) {
                    *left = false;
                }
            }
            None => sound = false,
        }
    }
    let of = |pick: &Vec<usize>| {
        let values = variables.iter().zip(pick);
        Combination::new(values.map(|(it, &value)| (it.name.as_str(), &it.values[value])))
    };
    let mut cells: Vec<Combination> =
        picks.iter().zip(left).filter(|(_, left)| *left).map(|(pick, _)| of(pick)).collect();
    let mut known: std::collections::BTreeSet<String> =
        cells.iter().map(|cell| cell.text.clone()).collect();
    // Values that run together make two cells alike: that is told elsewhere.
    for (node, entry) in entries(stage, INCLUDE, table, mistakes)? {
        let Some(cell) = include(stage, node, entry, variables, mistakes) else {
            sound = false;
            continue;
        };
        if known.insert(cell.text.clone()) {
            cells.push(cell);
        } else {
            sound = false;
            let message = format!("`{stage}[{}]` is there already", cell.text);
            let help =
                "`include` adds cells that the other variables do not make: remove the entry";
            mistakes.push(at(node, "duplicate", message, "again").help(help));
        }
    }
    if sound && cells.is_empty() {
        let node = table.get(EXCLUDE).map_or(matrix, |entry| &entry.node);
        let message = format!("`exclude` leaves no cell of `{stage}`");
        let help = "without a cell the stage would not exist: exclude less, or remove the stage";
        mistakes.push(at(node, "empty-matrix", message, "excludes all").help(help));
        return None;
    }
    sound.then_some(cells)
}

/// Whether cells are added to those that the variables make.
pub(super) fn has_more(table: &Table) -> bool {
    table.get(INCLUDE).is_some()
}

/// The entries of a list of cells; `None` if it has another form.
fn entries<'t>(
    stage: &str,
    key: &str,
    table: &'t Table,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<(&'t Node, &'t Table)>> {
    let Some(list) = table.get(key).map(|entry| &entry.node) else { return Some(Vec::new()) };
    let mut wrong = |node: &Node, message: String, label: &str| {
        let help = format!("write {key} = [{{ variant = \"fp32\", batch = 32 }}]");
        mistakes.push(at(node, "matrix", message, label).help(help));
        None
    };
    let nodes = match &list.value {
        Value::List(nodes) => nodes,
        Value::Broken => return None,
        _ => {
            let message = format!("`{key}` in the matrix of `{stage}` is {}", list.kind());
            return wrong(list, message, "expected an array of tables");
        }
    };
    let mut found = Vec::new();
    for node in nodes {
        match &node.value {
            Value::Table(entry) if entry.entries.is_empty() => {
                let message = format!("an entry of `{key}` in the matrix of `{stage}` is empty");
                return wrong(node, message, "expected variables and their values");
            }
            Value::Table(entry) => found.push((node, entry)),
            Value::Broken => return None,
            _ => {
                let kind = node.kind();
                let message = format!("an entry of `{key}` in the matrix of `{stage}` is {kind}");
                return wrong(node, message, "expected a table");
            }
        }
    }
    Some(found)
}

/// What a combination must have to be excluded: positions of variables and of their values.
fn exclude(
    stage: &str,
    node: &Node,
    entry: &Table,
    variables: &[Variable],
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<(usize, usize)>> {
    let before = mistakes.len();
    let mut wanted = Vec::new();
    let mut missing = None;
    for value in &entry.entries {
        let Some(index) = variables.iter().position(|it| it.name == value.key) else {
            mistakes.push(unknown(stage, value, variables));
            continue;
        };
        let Some(text) = value_text(stage, &value.key, &value.node, mistakes) else { continue };
        match variables[index].values.iter().position(|(known, _)| *known == text) {
            Some(position) => wanted.push((index, position)),
            None => missing = missing.or(Some((index, text))),
        }
    }
    if mistakes.len() > before || node.is_broken() {
        return None;
    }
    let Some((index, text)) = missing else { return Some(wanted) };
    let variable = &variables[index];
    let names = list(variable.values.iter().map(|(text, _)| text.as_str()), "and");
    let message = format!("this entry excludes no cell of `{stage}`");
    let label = format!("`{}` is never `{text}`", variable.name);
    mistakes
        .push(at(node, "matrix", message, &label).help(format!("`{}` has {names}", variable.name)));
    None
}

/// The cell that an entry adds.
fn include(
    stage: &str,
    node: &Node,
    entry: &Table,
    variables: &[Variable],
    mistakes: &mut Vec<Mistake>,
) -> Option<Combination> {
    let before = mistakes.len();
    for value in &entry.entries {
        if !variables.iter().any(|it| it.name == value.key) {
            mistakes.push(unknown(stage, value, variables));
        }
    }
    let mut values = Vec::new();
    for variable in variables {
        let Some(value) = entry.get(&variable.name) else {
            let message = format!("an included cell of `{stage}` has no `{}`", variable.name);
            let label = format!("`{}` is missing", variable.name);
            let help = format!("an entry of `include` gives a value for {}", names(variables));
            mistakes.push(at(node, "matrix", message, &label).help(help));
            continue;
        };
        if let Some(text) = value_text(stage, &variable.name, &value.node, mistakes) {
            values.push((variable.name.as_str(), (text, value.node.clone())));
        }
    }
    let complete = mistakes.len() == before && values.len() == variables.len();
    complete.then(|| Combination::new(values.iter().map(|(name, value)| (*name, value))))
}

fn unknown(stage: &str, entry: &super::tree::Entry, variables: &[Variable]) -> Mistake {
    let known = variables.iter().map(|it| it.name.as_str());
    let message = format!("the matrix of `{stage}` has no variable `{}`", entry.key);
    let label = did_you_mean(&entry.key, known, "not in this matrix");
    let help = format!(
        "its variables are {}; `exclude` and `include` cannot add others",
        names(variables)
    );
    Mistake::new("unknown-matrix", entry.place, message, label).help(help)
}

fn names(variables: &[Variable]) -> String {
    list(variables.iter().map(|it| it.name.as_str()), "and")
}
