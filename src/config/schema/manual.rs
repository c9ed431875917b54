//! `docs/pipeline-reference.md`, generated.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::compile;
use super::describe::words_of;
use super::shape::{Field, Fields, Schema, Shape};
use crate::stages::KINDS;
use crate::stages::contract::{Demand, Kind, Runs, Stage};

/// The least configuration of each kind, from which its outputs are read.
const LEAST: &[(&str, &str)] = &[
    (
        "train",
        "model = 'a'\ntrain = 'a'\nvalid = 'a'\nepochs = 1\noptimizer = { kind = 'sgd', lr = 1 }",
    ),
    ("equalize", "model = 'a'"),
    ("calibrate", "model = 'a'\ndata = 'a'"),
    ("sensitivity", "model = 'a'\nranges = 'a'\ntarget = 'tensorrt'\ndata = 'a'"),
    ("search", "model = 'a'\nranges = 'a'\ntarget = 'onnxruntime'\ndata = 'a'"),
    ("insert-qdq", "model = 'a'\nranges = 'a'\ntarget = 'tensorrt'"),
    ("reconstruct", "model = 'a'\ndata = 'a'"),
    ("finetune", "model = 'a'\ntrain = 'a'\nvalid = 'a'"),
    ("evaluate", "model = 'a'\ndata = 'a'"),
    ("export-onnx", "model = 'a'"),
    ("build-engine", "model = 'a'"),
    ("verify", "model = 'a'\nonnx = 'a'\ndata = 'a'"),
    ("benchmark", "engine = 'a'"),
    ("report", ""),
    ("command", "run = 'a'\noutputs = {}"),
];

/// The whole reference.
fn manual() -> String {
    let mut text = include_str!("manual.md").to_owned();
    let mut types = BTreeMap::new();
    text.push_str("## `[pipeline]` <a id=\"pipeline\"></a>\n\n");
    keys(&mut text, compile::pipeline(), &mut types);
    text.push_str(
        "\n## `[params]` <a id=\"params\"></a>\n\nAny keys with any values; `${params.NAME}` takes them.\n",
    );
    text.push_str("\n## `[data.NAME]` <a id=\"data\"></a>\n\nAn image data set, with labels or without; `\"data.NAME\"` refers to it.\n\n");
    keys(&mut text, compile::data(), &mut types);
    text.push_str("\n## `[stages.NAME]` <a id=\"kinds\"></a>\n\nEvery stage has the key `kind`, and may have [`matrix`](#matrix) and these, which say how it is run. They are no part of its cache key: to change them runs nothing again.\n\n");
    keys(&mut text, &compile::execution(), &mut types);
    text.push_str("\nThe other keys are those of its kind.\n\n| Kind | What it does | Takes, without `resources` |\n| --- | --- | --- |\n");
    for kind in KINDS {
        let takes = match kind.demand {
            Demand::Light => "1 processor",
            Demand::Whole => "all processors",
            Demand::Alone => "the machine for itself",
        };
        let about = cell(kind.about);
        let _ = writeln!(text, "| [`{0}`](#{0}) | {about} | {takes} |", kind.name);
    }
    for kind in KINDS {
        let _ = write!(text, "\n### `{0}` <a id=\"{0}\"></a>\n\n{1}\n\n", kind.name, about(kind));
        keys(&mut text, &compile::kind(kind), &mut types);
        text.push_str(&outputs(kind));
    }
    text.push_str("\n## `[remote]` <a id=\"remote\"></a>\n\nA cache that is shared with other machines: results are taken from it before they are computed.\n\n");
    keys(&mut text, compile::remote(), &mut types);
    text.push_str("\n## `[guards.NAME]` <a id=\"guards\"></a>\n\nBounds that `qpipe ci` holds a figure to: `metric` and one or two of the others. Changes are measured from the figure in the last accepted lock file, or from `baseline`.\n\n");
    keys(&mut text, compile::guard(), &mut types);
    text.push_str("\n## `[slurm]` <a id=\"slurm\"></a>\n\nHow stages are submitted to a cluster by `qpipe run FILE --executor slurm`; see [slurm.md](slurm.md).\n\n");
    keys(&mut text, compile::slurm(), &mut types);
    text.push_str("\n## Types\n");
    let mut written = Vec::new();
    while let Some((name, schema)) = types.iter().find(|(name, _)| !written.contains(*name)) {
        let (name, schema) = (name.clone(), schema.clone());
        let mut more = BTreeMap::new();
        describe(&mut text, &name, &schema, &mut more);
        types.extend(more);
        written.push(name);
    }
    text.replace("\n\n\n", "\n\n")
}

fn about(kind: &Kind) -> String {
    let schema = (kind.schema)();
    schema.get("description").and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// What a stage of that kind leaves behind, and where it runs.
fn outputs(kind: &Kind) -> String {
    let least = LEAST.iter().find(|(name, _)| *name == kind.name);
    let (_, least) = least.unwrap_or_else(|| panic!("add `{}` to LEAST", kind.name));
    let table: toml::Table = toml::from_str(least).expect("LEAST is TOML");
    let stage: Box<dyn Stage> = (kind.parse)(table.into()).expect("LEAST is a configuration");
    let mut text = String::new();
    if kind.runs != Runs::Program {
        text.push_str("\n| Output | Type | File |\n| --- | --- | --- |\n");
        for output in stage.outputs() {
            let _ = writeln!(
                text,
                "| `{}` | {} | `{}` |",
                output.port,
                output.kind.name(),
                output.file
            );
        }
    }
    text
}

/// A table of keys; the named types in it are remembered.
fn keys(text: &mut String, fields: &Fields, types: &mut BTreeMap<String, Schema>) {
    if fields.known.is_empty() {
        return;
    }
    text.push_str("| Key | Value | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for field in &fields.known {
        row(text, field, types);
    }
}

fn row(text: &mut String, field: &Field, types: &mut BTreeMap<String, Schema>) {
    let default = match (&field.schema.default, field.required) {
        (_, true) => "required".to_owned(),
        (Some(default), _) => format!("`{}`", toml_text(default)),
        (None, _) => String::new(),
    };
    let value = cell(&value(&field.schema, types));
    let meaning = cell(&field.schema.doc);
    let _ = writeln!(text, "| `{}` | {value} | {} | {meaning} |", field.name, cell(&default));
}

/// A value's type, with links to the named ones.
fn value(schema: &Schema, types: &mut BTreeMap<String, Schema>) -> String {
    let link = |name: &str| format!("[{}](#{})", spaced(name), spaced(name).replace(' ', "-"));
    match (&schema.shape, &schema.name) {
        (Shape::Reference, _) => "[reference](#references)".to_owned(),
        (Shape::List { items, .. }, _)
            if items.name.is_some() || matches!(items.shape, Shape::List { .. }) =>
        {
            format!("array of {}", value(items, types))
        }
        (Shape::Words(words), Some(name)) if words.iter().any(|word| !word.doc.is_empty()) => {
            types.insert(name.clone(), schema.clone());
            format!("{} ({})", words_of(words.iter().map(|word| word.word.as_str())), link(name))
        }
        (
            Shape::Table(_) | Shape::Tagged { .. } | Shape::Keyed(_) | Shape::Either(_),
            Some(name),
        ) => {
            types.insert(name.clone(), schema.clone());
            link(name)
        }
        (Shape::Table(Fields { known, rest: Some(rest) }), None) if known.is_empty() => {
            format!("table of {}", value(rest, types))
        }
        (shape, _) => {
            let text = shape.expected();
            text.trim_start_matches("an ").trim_start_matches("a ").to_owned()
        }
    }
}

/// The section of a named type.
fn describe(text: &mut String, name: &str, schema: &Schema, types: &mut BTreeMap<String, Schema>) {
    let _ = write!(text, "\n### {}\n\n", spaced(name));
    match &schema.shape {
        Shape::Words(words) => {
            for word in words {
                let _ = writeln!(text, "- `\"{}\"`: {}", word.word, line(&word.doc));
            }
        }
        Shape::Table(fields) => {
            keys(text, fields, types);
        }
        Shape::Tagged { tag, variants } => {
            let _ = writeln!(text, "A table; its key `{tag}` chooses the others.");
            for variant in variants {
                let _ =
                    write!(text, "\n`{tag} = \"{}\"`: {}\n\n", variant.word, line(&variant.doc));
                keys(text, &variant.fields, types);
            }
        }
        Shape::Keyed(fields) => {
            text.push_str("A table with exactly one of these keys:\n\n");
            text.push_str("| Key | Value | Meaning |\n| --- | --- | --- |\n");
            for field in fields {
                let value = cell(&value(&field.schema, types));
                let _ =
                    writeln!(text, "| `{}` | {value} | {} |", field.name, cell(&field.schema.doc));
            }
        }
        Shape::Either(schemas) => {
            text.push_str("One of:\n\n");
            for schema in schemas {
                let _ = writeln!(text, "- {}: {}", value(schema, types), line(&schema.doc));
            }
        }
        _ => {}
    }
}

/// `ZooModel` as `zoo model`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    line(text).replace('|', "\\|")
}

fn toml_text(json: &Json) -> String {
    match json {
        Json::Array(items) => {
            format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        Json::Object(entries) => {
            let entries =
                entries.iter().map(|(key, value)| format!("{key} = {}", toml_text(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[test]
fn the_manual_is_current() {
    super::editor::compare("pipeline-reference.md", &manual());
}
