//! `--set KEY=VALUE`: values put into the tree before anything else happens to it.

use std::ops::Range;

use super::mistakes::Mistake;
use super::parse;
use super::profiles;
use super::suggest::{did_you_mean, list};
use super::tree::{Entry, Node, Place, Table, Value};

/// Tables that an override may begin: their keys are all known.
const OPTIONAL: [&str; 3] = ["pipeline", "remote", "slurm"];

/// A key of the path, and where it stands in the override.
type Step = (String, Place);

/// An override with one value.
pub(super) struct Setting {
    /// The whole option: `KEY=VALUE`, or several values with commas between them.
    pub text: String,
    /// The text's index among the sources.
    pub source: usize,
    /// Where the value stands in the text.
    pub value: Range<usize>,
}

/// Puts overrides into the tree.
pub(super) fn apply(root: &mut Table, settings: &[Setting], mistakes: &mut Vec<Mistake>) {
    for setting in settings {
        if let Err(mistake) = apply_one(root, setting) {
            mistakes.push(mistake);
        }
    }
}

fn apply_one(root: &mut Table, setting: &Setting) -> Result<(), Mistake> {
    const FORM: &str =
        "write --set KEY=VALUE, such as --set params.epochs=5 or --set stages.qat.epochs=5";
    let (text, source) = (setting.text.as_str(), setting.source);
    let all = Place { source, start: 0, end: text.len() };
    let Some(equals) = find_equals(text) else {
        return Err(Mistake::new(
            "override",
            all,
            "an override needs a key and a value",
            "`=` is missing",
        )
        .help(FORM));
    };
    let steps = key_path(&text[..equals], source).map_err(|place| {
        Mistake::new("override", place, "not a key", "expected a name").help(FORM)
    })?;
    let value = value(&text[setting.value.clone()], source, setting.value.start)?;
    let (last, tables) = steps.split_last().expect("a path has at least one key");
    let Some((first, _)) = tables.first() else {
        let tables = ["params", "pipeline", "data", "stages", "remote", "guards", "slurm"];
        if last.0 == profiles::KEY {
            return Err(of_profiles(last.1));
        }
        let known = root.get(&last.0).is_some();
        let label = if known { "this is a table" } else { "not a table of the file" };
        return Err(Mistake::new(
            "override",
            last.1,
            format!("`{}` is not a value", last.0),
            label,
        )
        .help(format!("name a key below {}: {FORM}", list(tables, "or"))));
    };
    if OPTIONAL.contains(&first.as_str()) && root.get(first).is_none() {
        let node = Node::new(Value::Table(Table::default()), all);
        root.entries.push(Entry { key: first.clone(), place: all, node });
    }
    let mut here = Here { path: String::new(), node: None };
    let mut target: Option<&mut Node> = None;
    for (index, (key, place)) in tables.iter().enumerate() {
        let next = match target {
            None => child_of_table(root, key, *place, &here)?,
            Some(node) => child(node, key, *place, &here)?,
        };
        here.path = if index == 0 { key.clone() } else { format!("{}.{key}", here.path) };
        here.node = Some(next.place);
        target = Some(next);
    }
    let target = target.expect("there is at least one table above the key");
    put(target, last, value, tables, &here)
}

/// The path so far, for messages.
struct Here {
    path: String,
    node: Option<Place>,
}

fn child<'t>(
    node: &'t mut Node,
    key: &str,
    place: Place,
    here: &Here,
) -> Result<&'t mut Node, Mistake> {
    let kind = node.kind();
    match &mut node.value {
        Value::Table(table) => child_of_table(table, key, place, here),
        Value::List(nodes) => element(nodes, key, place, here),
        _ => Err(not_a_table(kind, place, here)),
    }
}

fn child_of_table<'t>(
    table: &'t mut Table,
    key: &str,
    place: Place,
    here: &Here,
) -> Result<&'t mut Node, Mistake> {
    match table.entries.iter().position(|entry| entry.key == key) {
        Some(index) => Ok(&mut table.entries[index].node),
        None => Err(unknown(table, key, place, here)),
    }
}

fn element<'t>(
    nodes: &'t mut [Node],
    key: &str,
    place: Place,
    here: &Here,
) -> Result<&'t mut Node, Mistake> {
    let count = nodes.len();
    let index = key.parse().ok().filter(|&index: &usize| index < count);
    index.and_then(|index| nodes.get_mut(index)).ok_or_else(|| {
        Mistake::new(
            "override",
            place,
            format!("`{}` is an array of {count}, it has no `{key}`", here.path),
            "expected an index, from 0",
        )
    })
}

fn put(
    node: &mut Node,
    (key, place): &Step,
    value: Node,
    tables: &[Step],
    here: &Here,
) -> Result<(), Mistake> {
    let kind = node.kind();
    match &mut node.value {
        Value::List(nodes) => *element(nodes, key, *place, here)? = value,
        Value::Table(table) => {
            if let Some(index) = table.entries.iter().position(|entry| entry.key == *key) {
                table.entries[index].node = value;
            } else if tables[0].0 == "params"
                || (tables.len() == 1 && !OPTIONAL.contains(&tables[0].0.as_str()))
            {
                // A new parameter is used by nothing, a new stage or data set is no override.
                return Err(unknown(table, key, *place, here));
            } else {
                // The schema decides whether the key is known.
                table.entries.push(Entry { key: key.clone(), place: *place, node: value });
            }
        }
        _ => return Err(not_a_table(kind, *place, here)),
    }
    Ok(())
}

fn unknown(table: &Table, key: &str, place: Place, here: &Here) -> Mistake {
    if here.path.is_empty() && key == profiles::KEY {
        return of_profiles(place);
    }
    let (message, help) = if here.path.is_empty() {
        (format!("the file has no table `{key}`"), format!("it has {}", list(table.keys(), "and")))
    } else {
        (
            format!("there is no `{key}` in `{}`", here.path),
            format!("`{}` has {}", here.path, list(table.keys(), "and")),
        )
    };
    Mistake::new("override", place, message, did_you_mean(key, table.keys(), "not in the file"))
        .help(help)
}

/// They were put over the file, or left out, before.
fn of_profiles(place: Place) -> Mistake {
    Mistake::new("override", place, "`--set` does not reach into profiles", "not possible here")
        .help("`--profile` chooses one; `--set` sets what it holds, such as params.epochs")
}

fn not_a_table(kind: &str, place: Place, here: &Here) -> Mistake {
    Mistake::new(
        "override",
        place,
        format!("`{}` is {}, it has no keys", here.path, kind),
        "not a table",
    )
    .also(here.node, "the value")
}

/// The first `=` outside of quotes.
pub(super) fn find_equals(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, letter) in text.char_indices() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            None if letter == '=' => return Some(index),
            None => {}
        }
    }
    None
}

/// `a.b."c.d"` as steps.
///
/// # Errors
///
/// Where an empty or badly quoted name stands.
pub(super) fn key_path(text: &str, source: usize) -> Result<Vec<Step>, Place> {
    let mut steps = Vec::new();
    let mut start = 0;
    loop {
        let rest = &text[start..];
        let trimmed = rest.trim_start();
        let quote = trimmed.chars().next().filter(|&letter| letter == '"' || letter == '\'');
        let closing = quote.and_then(|quote| trimmed[1..].find(quote));
        let quoted = rest.len() - trimmed.len() + closing.map_or(0, |closing| closing + 2);
        let end = rest[quoted..].find('.').map_or(text.len(), |dot| start + quoted + dot);
        let name = text[start..end].trim();
        let at = start + (text[start..end].len() - text[start..end].trim_start().len());
        let place = Place { source, start: at, end: (at + name.len()).max(start) };
        let bare = match quote {
            Some(quote) => name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote)),
            None => Some(name),
        };
        match bare {
            Some(bare) if !bare.is_empty() => steps.push((bare.to_owned(), place)),
            _ => return Err(place),
        }
        if end == text.len() {
            return Ok(steps);
        }
        start = end + 1;
    }
}

/// TOML, or plain text where it does not look like TOML.
pub(super) fn value(text: &str, source: usize, shift: usize) -> Result<Node, Mistake> {
    let shift = shift + (text.len() - text.trim_start().len());
    let text = text.trim();
    let place = Place { source, start: shift, end: shift + text.len() };
    match parse::value(text, source, shift) {
        Ok(Node { value: Value::Date(_), .. }) => {
            Ok(Node::new(Value::Text(text.to_owned()), place))
        }
        Ok(node) => Ok(node),
        Err(message) if text.starts_with(['[', '{', '"', '\'']) => Err(Mistake::new(
            "override",
            place,
            format!("the value is not TOML: {message}"),
            "here",
        )
        .help("plain text needs no quotes; an array is [1, 2], a table { a = 1 }")),
        Err(_) => Ok(Node::new(Value::Text(text.to_owned()), place)),
    }
}
