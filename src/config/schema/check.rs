//! A spanned value against its schema: all mistakes, each at its place.

use super::choose::choose;
use super::describe::words_of;
use super::shape::{Field, Fields, Range, Schema, Shape, Variant, Word};
use crate::config::mistakes::Mistake;
use crate::config::suggest::{did_you_mean, list, nearest};
use crate::config::tree::{Entry, Node, Table, Value};

const FROM: &str = "the value comes from here";

/// Checks a table; `path` names it in messages, such as `stages.fp32`.
pub(in crate::config) fn check(
    fields: &Fields,
    table: &Table,
    node: &Node,
    path: &str,
    mistakes: &mut Vec<Mistake>,
) {
    check_fields(fields, None, &table.entries, node, Path::Root(path), mistakes);
}

/// The path of a value, written out only where there is a mistake to tell.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(path) => f.write_str(path),
            Self::Key(above, key) => write!(f, "{above}.{key}"),
            Self::Index(above, index) => write!(f, "{above}.{index}"),
        }
    }
}

pub(super) fn check_node(
    schema: &Schema,
    node: &Node,
    path: Path<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    match (&schema.shape, &node.value) {
        (_, Value::Broken)
        | (Shape::Any, _)
        | (Shape::Boolean, Value::Boolean(_))
        | (Shape::Reference | Shape::Path, Value::Text(_)) => {}
        (Shape::Text { min_length }, Value::Text(text)) => {
            if text.chars().count() < *min_length {
                let message = format!("`{path}` is empty");
                mistakes.push(at("out-of-range", node, message, "expected some text"));
            }
        }
        (Shape::Words(words), Value::Text(_)) => check_word(words, node, path, mistakes),
        #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
        (Shape::Integer(range) | Shape::Number(range), Value::Integer(number)) => {
            check_range(*range, *number as f64, &schema.shape, node, path, mistakes);
        }
        (Shape::Number(range), Value::Float(number)) => {
            check_range(*range, *number, &schema.shape, node, path, mistakes);
        }
        (Shape::List { items, min, max }, Value::List(nodes)) => {
            if nodes.len() < *min || nodes.len() > *max {
                let message = format!("`{path}` has {} entries", nodes.len());
                let label = format!("expected {}", schema.shape.expected());
                mistakes.push(at("out-of-range", node, message, label));
            }
            for (index, node) in nodes.iter().enumerate() {
                check_node(items, node, Path::Index(&path, index), mistakes);
            }
        }
        (Shape::Table(fields), Value::Table(table)) => {
            check_fields(fields, None, &table.entries, node, path, mistakes);
        }
        (Shape::Tagged { tag, variants }, Value::Table(table)) => {
            check_tagged(tag, variants, table, node, path, mistakes);
        }
        (Shape::Keyed(keys), Value::Table(table)) => check_keyed(keys, table, node, path, mistakes),
        (Shape::Either(schemas), _) => match choose(schemas, node) {
            Some(Schema { shape: Shape::Words(words), .. }) => {
                let start = mistakes.len();
                check_word(words, node, path, mistakes);
                for mistake in &mut mistakes[start..] {
                    mistake.help = Some(format!("expected {}", schema.shape.expected()));
                }
            }
            Some(schema) => check_node(schema, node, path, mistakes),
            None => mistakes.push(wrong_type(schema, node, path)),
        },
        _ => mistakes.push(wrong_type(schema, node, path)),
    }
}

fn at(code: &'static str, node: &Node, message: String, label: impl Into<String>) -> Mistake {
    Mistake::new(code, node.place, message, label).also(node.from, FROM)
}

fn wrong_type(schema: &Schema, node: &Node, path: Path<'_>) -> Mistake {
    let shape = &schema.shape;
    let message = format!("`{path}` is {}", node.kind());
    let mistake = at("wrong-type", node, message, format!("expected {}", shape.expected()));
    match (&node.value, shape) {
        (Value::Text(text), Shape::Integer(_) | Shape::Number(_))
            if text.parse::<f64>().is_ok() && node.from.is_none() =>
        {
            mistake.help(format!("write it without quotation marks: {text}"))
        }
        (Value::Text(text), Shape::Boolean) if text == "true" || text == "false" => {
            mistake.help(format!("write it without quotation marks: {text}"))
        }
        (Value::Float(number), Shape::Integer(_)) if number.fract() == 0.0 => {
            mistake.help(format!("write it without a point or exponent: {number}"))
        }
        (Value::Text(text), Shape::Tagged { tag, variants })
            if variants.iter().any(|variant| variant.word == *text) =>
        {
            mistake.help(format!("write {{ {tag} = \"{text}\", … }}"))
        }
        (_, Shape::List { .. }) if node.table().is_none() => {
            mistake.help("put it into brackets: [ … ]")
        }
        _ if fits_as_text(schema, node) => mistake.unquoted(node.from.unwrap_or(node.place)),
        _ => mistake,
    }
}

/// Whether a number or a boolean would be right in quotation marks.
fn fits_as_text(schema: &Schema, node: &Node) -> bool {
    let (Value::Integer(_) | Value::Float(_) | Value::Boolean(_), Some(text)) =
        (&node.value, node.scalar())
    else {
        return false;
    };
    let mut mistakes = Vec::new();
    let text = Node::new(Value::Text(text), node.place);
    check_node(schema, &text, Path::Root(""), &mut mistakes);
    mistakes.is_empty()
}

fn check_range(
    range: Range,
    number: f64,
    shape: &Shape,
    node: &Node,
    path: Path<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    if !range.contains(number) {
        let found = node.scalar().unwrap_or_default();
        let label = format!("expected {}", shape.expected());
        mistakes.push(at(
            "out-of-range",
            node,
            format!("`{path}` is out of range: {found}"),
            label,
        ));
    }
}

fn check_word(words: &[Word], node: &Node, path: Path<'_>, mistakes: &mut Vec<Mistake>) {
    let Value::Text(text) = &node.value else { return };
    let names = || words.iter().map(|word| word.word.as_str());
    if !names().any(|word| word == text) {
        mistakes.push(unknown_word(text, names, node, path));
    }
}

fn unknown_word<'a, I: Iterator<Item = &'a str>>(
    text: &str,
    names: impl Fn() -> I,
    node: &Node,
    path: Path<'_>,
) -> Mistake {
    let label = nearest(text, names())
        .map_or_else(|| "not known".to_owned(), |near| format!("did you mean \"{near}\"?"));
    at("unknown-word", node, format!("`{path}` cannot be \"{text}\""), label)
        .help(format!("expected {}", words_of(names())))
}

fn check_tagged(
    tag: &str,
    variants: &[Variant],
    table: &Table,
    node: &Node,
    path: Path<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    let names = || variants.iter().map(|variant| variant.word.as_str());
    let Some(entry) = table.get(tag) else {
        let message = format!("`{path}` has no `{tag}`");
        let mistake = at("missing-key", node, message, format!("`{tag}` is missing"));
        mistakes.push(mistake.help(format!("expected {tag} = {}", words_of(names()))));
        return;
    };
    let path_of_tag = Path::Key(&path, tag);
    match &entry.node.value {
        Value::Broken => {}
        Value::Text(word) => match variants.iter().find(|variant| variant.word == *word) {
            Some(variant) => {
                check_fields(&variant.fields, Some(tag), &table.entries, node, path, mistakes);
            }
            None => mistakes.push(unknown_word(word, names, &entry.node, path_of_tag)),
        },
        _ => {
            let message = format!("`{path_of_tag}` is {}", entry.node.kind());
            let label = format!("expected {}", words_of(names()));
            mistakes.push(at("wrong-type", &entry.node, message, label));
        }
    }
}

fn check_keyed(
    keys: &[Field],
    table: &Table,
    node: &Node,
    path: Path<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    let names = || keys.iter().map(|key| key.name.as_str());
    let help = || format!("write one of {}", list(names(), "or"));
    match table.entries.as_slice() {
        [entry] => match keys.iter().find(|key| key.name == entry.key) {
            Some(key) => {
                check_node(&key.schema, &entry.node, Path::Key(&path, &key.name), mistakes);
            }
            None => {
                let message = format!("unknown key `{}` in `{path}`", entry.key);
                let label = did_you_mean(&entry.key, names(), "not known");
                mistakes
                    .push(Mistake::new("unknown-key", entry.place, message, label).help(help()));
            }
        },
        [] => mistakes
            .push(at("missing-key", node, format!("`{path}` is empty"), "here").help(help())),
        [_, second, ..] => {
            let message = format!("`{path}` has {} keys, it takes one", table.entries.len());
            let mistake = Mistake::new("unknown-key", second.place, message, "one too many");
            mistakes.push(mistake.help("write a table of its own for each: [{ … }, { … }]"));
        }
    }
}

/// Checks all keys but the tag, which chose the fields.
fn check_fields(
    fields: &Fields,
    tag: Option<&str>,
    entries: &[Entry],
    node: &Node,
    path: Path<'_>,
    mistakes: &mut Vec<Mistake>,
) {
    let mut misspelt = Vec::new();
    let others = || entries.iter().filter(|entry| Some(entry.key.as_str()) != tag);
    for entry in others() {
        let below = Path::Key(&path, &entry.key);
        if let Some(field) = fields.get(&entry.key) {
            check_node(&field.schema, &entry.node, below, mistakes);
        } else if let Some(rest) = &fields.rest {
            check_node(rest, &entry.node, below, mistakes);
        } else {
            let free = || {
                let given = |name: &str| others().any(|entry| entry.key == name);
                fields.names().filter(move |name| !given(name))
            };
            misspelt.extend(nearest(&entry.key, free()));
            let message = format!("unknown key `{}` in `{path}`", entry.key);
            let label = did_you_mean(&entry.key, free(), "not known");
            let help = format!("the keys here are {}", list(fields.names(), "and"));
            mistakes.push(Mistake::new("unknown-key", entry.place, message, label).help(help));
        }
    }
    let missing: Vec<&Field> = fields
        .known
        .iter()
        .filter(|field| field.required && !others().any(|entry| entry.key == field.name))
        // A misspelt key is one mistake, not two.
        .filter(|field| !misspelt.contains(&field.name.as_str()))
        .collect();
    if !missing.is_empty() {
        let names = list(missing.iter().map(|field| field.name.as_str()), "and");
        let verb = if missing.len() == 1 { "is" } else { "are" };
        let help: Vec<String> = missing.iter().map(|field| explain(field)).collect();
        let mistake = at(
            "missing-key",
            node,
            format!("`{path}` has no {names}"),
            format!("{names} {verb} missing"),
        );
        mistakes.push(mistake.help(help.join("\n")));
    }
}

/// `epochs: an integer, 1…100000 (passes over the training data)`.
fn explain(field: &Field) -> String {
    let first = field.schema.doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    format!("{}: {}. {first}", field.name, field.schema.shape.expected())
}
