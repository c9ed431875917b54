//! `docs/pipeline.schema.json`, generated: the contracts' JSON schemas in one, for editors.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::config::guards::GuardTable;
use crate::config::remote::RemoteTable;
use crate::config::slurm::Slurm;
use crate::stages::KINDS;
use crate::stages::command::Command;
use crate::stages::contract::Contract as _;
use crate::stages::data::DataSpec;
use crate::stages::execution::ExecutionTable;

/// The JSON Schema of pipeline files for editors, as text.
pub fn editor_schema() -> String {
    // Values print, and their text has no end of its own.
    format!("{:#}\n", schema())
}

/// The whole file as one schema. Every value may also be a string with `${…}` in it.
fn schema() -> Json {
    let mut defs = Map::new();
    defs.insert(
        "Interpolated".to_owned(),
        json!({ "type": "string", "pattern": "\\$\\{(params|env|matrix|secret)\\." }),
    );
    let data = take(schemars::schema_for!(DataSpec), &mut defs);
    let remote = take(schemars::schema_for!(RemoteTable), &mut defs);
    let slurm = take(schemars::schema_for!(Slurm), &mut defs);
    let mut guard = take(schemars::schema_for!(GuardTable), &mut defs);
    hold_to(&mut guard["properties"]["metric"], FIGURE);
    guard["properties"]["baseline"]["anyOf"][0]["pattern"] = json!(FIGURE);
    let common = common(&mut defs);
    let kinds: Vec<Json> = KINDS
        .iter()
        .map(|kind| {
            let mut schema = take((kind.schema)(), &mut defs);
            let properties = schema["properties"].as_object_mut().expect("a contract is a table");
            properties.insert("kind".to_owned(), json!({ "const": kind.name }));
            if let Some(device) = properties.get_mut("device") {
                hold_to(device, DEVICE);
            }
            properties.insert("matrix".to_owned(), json!({ "$ref": "#/$defs/Matrix" }));
            properties.extend(common.clone());
            if kind.name == Command::NAME {
                schema["properties"]["outputs"]["anyOf"][0]["minProperties"] = json!(1);
            }
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            schema["required"] = [json!("kind")].into_iter().chain(required).collect();
            schema
        })
        .collect();
    defs.insert("Matrix".to_owned(), matrix());
    narrow(&mut defs);
    let named = json!({ "pattern": NAME });
    let mut tables = json!({
        "data": { "type": "object", "propertyNames": named, "additionalProperties": data },
        "stages": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": NAME, "not": { "const": "data" } },
            "additionalProperties": { "oneOf": kinds }
        },
        "remote": remote,
        "guards": { "type": "object", "propertyNames": named, "additionalProperties": guard }
    });
    let mut parts = tables.clone();
    over(&mut parts, &mut defs);
    tables.as_object_mut().expect("it is written above").values_mut().for_each(strip);
    tables["guards"]["additionalProperties"]["allOf"] = bounds();
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "qpipe pipeline",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "extends": {
                "description": "Files that this one is put over, relative to it.",
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
            },
            "profiles": {
                "type": "object",
                "description": "Tables that --profile NAME puts over those of the file.",
                "propertyNames": named,
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": { "type": "object" }
                }
            },
            "pipeline": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "name": { "type": "string", "minLength": 1, "description": "Default: the file's name." },
                    "seed": { "type": "integer", "minimum": 0, "default": 0, "description": "Seed of all randomness." }
                }
            },
            "params": { "type": "object", "propertyNames": named, "description": "Values for ${params.NAME}." },
            "slurm": slurm
        },
        // What a file does not repeat stands in those that it extends.
        "if": { "required": ["extends"] },
        "else": { "required": ["stages"], "properties": tables },
        "$defs": defs
    });
    let properties = schema["properties"].as_object_mut().expect("it is written above");
    properties.extend(parts.as_object_mut().map(std::mem::take).unwrap_or_default());
    schema
}

/// Names of tables: see `config::stage::is_name`.
const NAME: &str = "^[A-Za-z0-9_-]+$";
/// `STAGE.METRIC` or `STAGE[CELL].METRIC`.
const FIGURE: &str = "^[A-Za-z0-9_-]+(\\[.+\\])?\\..+$";
/// See `stages::device::Device`.
const DEVICE: &str = "^(auto|cpu|cuda(:[0-9]{1,3})?)$";
/// See `stages::quantity`.
const TIME: &str = "^\\s*(([0-9]+\\.?[0-9]*|\\.[0-9]+)\\s*(ms|s|min|h|d)\\s*)+$";
/// See `stages::quantity`.
const SIZE: &str = "^\\s*([0-9]+\\.?[0-9]*|\\.[0-9]+)\\s*(kB|MB|GB|TB|KiB|MiB|GiB|TiB)\\s*$";
/// A path below a folder: see `stages::inside`.
const INSIDE: &str = "^([^/]*[^/.][^/]*|\\.{3,})(/([^/]*[^/.][^/]*|\\.{3,}))*$";

/// The variables of a matrix; `exclude` and `include` are lists of cells.
fn matrix() -> Json {
    let interpolated = json!({ "$ref": "#/$defs/Interpolated" });
    let value = json!({ "type": ["string", "number", "boolean"], "minLength": 1 });
    let values = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": value });
    let cell = json!({ "type": "object", "minProperties": 1, "additionalProperties": value });
    let cell = json!({ "anyOf": [cell, interpolated] });
    let cells = json!({ "anyOf": [{ "type": "array", "items": cell }, interpolated] });
    let variables = json!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": NAME },
        "properties": { "exclude": cells, "include": cells },
        "additionalProperties": { "anyOf": [values, interpolated] }
    });
    json!({ "anyOf": [variables, interpolated] })
}

/// What the types of the contracts do not say.
fn narrow(defs: &mut Map<String, Json>) {
    for (name, pattern) in [("Time", TIME), ("Memory", SIZE), ("CommandOutput", INSIDE)] {
        let choices = defs[name]["anyOf"].as_array_mut().expect("a number or a text");
        let texts = choices.iter_mut().filter(|choice| choice["type"] == "string");
        texts.for_each(|text| text["pattern"] = json!(pattern));
    }
    hold_to(&mut defs["TypedOutput"]["properties"]["file"], INSIDE);
    defs["Resources"]["properties"]["gpus"]["anyOf"][0] = json!({ "anyOf": [
        { "type": "integer", "minimum": 0 },
        { "type": "number", "minimum": 0, "exclusiveMaximum": 1 },
        { "type": "null" }
    ] });
}

/// Holds a text to a pattern, unless it is interpolated.
fn hold_to(schema: &mut Json, pattern: &str) {
    schema["pattern"] = json!(pattern);
    loosen_value(schema);
}

/// One or two bounds of a guard.
fn bounds() -> Json {
    let bounds = ["max_drop", "max_drop_percent", "max_growth", "max_growth_percent", "min", "max"];
    let one: Vec<Json> = bounds.iter().map(|bound| json!({ "required": [bound] })).collect();
    let mut three = Vec::new();
    for (at, first) in bounds.iter().enumerate() {
        for (next, second) in bounds.iter().enumerate().skip(at + 1) {
            let more = bounds.iter().skip(next + 1);
            three.extend(more.map(|third| json!({ "required": [first, second, third] })));
        }
    }
    json!([{ "anyOf": one }, { "not": { "anyOf": three } }])
}

/// Makes tables those of a file that is put over others: nothing is required in them. Definitions that this changes get a second form, `NAME-over`, and
/// keep their descriptions there: editors show the tables of all files.
fn over(tables: &mut Json, defs: &mut Map<String, Json>) {
    let mut changed = BTreeSet::new();
    loop {
        let news: Vec<String> = defs
            .iter()
            .filter(|(name, definition)| {
                let mut relaxed = (*definition).clone();
                relax(&mut relaxed, &changed);
                !changed.contains(*name) && relaxed != **definition
            })
            .map(|(name, _)| name.clone())
            .collect();
        if news.is_empty() {
            break;
        }
        changed.extend(news);
    }
    for name in &changed {
        let mut definition = defs[name].clone();
        relax(&mut definition, &changed);
        defs.insert(format!("{name}-over"), definition);
        strip(&mut defs[name]);
    }
    for table in tables.as_object_mut().expect("tables by name").values_mut() {
        relax(table, &changed);
    }
}

/// Requires nothing: neither keys, nor any at all, nor that a table fits one form alone.
fn relax(schema: &mut Json, changed: &BTreeSet<String>) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("required");
    object.remove("minProperties");
    if let Some(choices) = object.remove("oneOf") {
        object.insert("anyOf".to_owned(), choices);
    }
    if let Some(Json::String(reference)) = object.get_mut("$ref")
        && reference.strip_prefix("#/$defs/").is_some_and(|name| changed.contains(name))
    {
        reference.push_str("-over");
    }
    below(object, |schema| relax(schema, changed));
}

/// Leaves out what is told in the other form of a schema.
fn strip(schema: &mut Json) {
    let Some(object) = schema.as_object_mut() else { return };
    for told in ["title", "description", "default", "format"] {
        object.remove(told);
    }
    below(object, strip);
}

/// Does something with each schema in a schema.
fn below(schema: &mut Map<String, Json>, each: impl Fn(&mut Json)) {
    for (key, below) in schema.iter_mut() {
        match (key.as_str(), below) {
            ("anyOf" | "oneOf", Json::Array(choices)) => choices.iter_mut().for_each(&each),
            ("properties", Json::Object(properties)) => properties.values_mut().for_each(&each),
            ("items" | "additionalProperties", schema) => each(schema),
            _ => {}
        }
    }
}

/// The keys that every stage may have; each kind refers to them.
fn common(defs: &mut Map<String, Json>) -> Map<String, Json> {
    let mut schema = take(schemars::schema_for!(ExecutionTable), defs);
    let properties = schema["properties"].as_object_mut().expect("it is a table");
    let define = |(key, definition): (String, Json)| {
        let name = format!("stage-{key}");
        let reference = json!({ "$ref": format!("#/$defs/{name}") });
        defs.insert(name, definition);
        (key, reference)
    };
    std::mem::take(properties).into_iter().map(define).collect()
}

/// A contract's schema, its definitions put with the others.
fn take(schema: schemars::Schema, defs: &mut Map<String, Json>) -> Json {
    let mut schema = schema.to_value();
    let object = schema.as_object_mut().expect("a contract is a table");
    object.remove("$schema");
    if let Some(Json::Object(more)) = object.remove("$defs") {
        for (name, mut definition) in more {
            loosen(&mut definition);
            if let Some(other) = defs.get(&name) {
                assert_eq!(*other, definition, "two types are called {name}");
            }
            defs.insert(name, definition);
        }
    }
    loosen(&mut schema);
    schema
}

/// Lets every value below a schema be an interpolated string too.
fn loosen(schema: &mut Json) {
    let Some(object) = schema.as_object_mut() else { return };
    for choice in ["oneOf", "anyOf"] {
        if let Some(Json::Array(choices)) = object.get_mut(choice) {
            choices.iter_mut().for_each(loosen);
        }
    }
    for below in ["items", "additionalProperties"] {
        if let Some(value) = object.get_mut(below) {
            loosen_value(value);
        }
    }
    if let Some(Json::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(loosen_value);
    }
}

fn loosen_value(schema: &mut Json) {
    loosen(schema);
    let Some(object) = schema.as_object_mut() else { return };
    let any_text = object.get("type") == Some(&json!("string")) && !object.contains_key("pattern");
    if object.contains_key("const") || any_text {
        return;
    }
    let mut outer = Map::new();
    for key in ["description", "default"] {
        if let Some(value) = object.remove(key) {
            outer.insert(key.to_owned(), value);
        }
    }
    let inner = Json::Object(std::mem::take(object));
    outer.insert("anyOf".to_owned(), json!([inner, { "$ref": "#/$defs/Interpolated" }]));
    *schema = Json::Object(outer);
}

/// Holds a generated document to its file in `docs`, or writes it if `QPIPE_BLESS` is set.
#[cfg(test)]
pub(crate) fn compare(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("QPIPE_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/{name} is not current: run QPIPE_BLESS=1 cargo test -p qpipe --lib manual"
    );
}

#[test]
fn the_manuals_schema_for_editors_is_current() {
    compare("pipeline.schema.json", &editor_schema());
}
