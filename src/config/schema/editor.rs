//! `docs/pipeline.schema.json`, generated: the contracts' JSON schemas in one, for editors.

use serde_json::{Map, Value as Json, json};

use crate::config::guards::GuardTable;
use crate::config::remote::RemoteTable;
use crate::config::slurm::Slurm;
use crate::stages::KINDS;
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
    let guard = take(schemars::schema_for!(GuardTable), &mut defs);
    let common = common(&mut defs);
    let kinds: Vec<Json> = KINDS
        .iter()
        .map(|kind| {
            let mut schema = take((kind.schema)(), &mut defs);
            let properties = schema["properties"].as_object_mut().expect("a contract is a table");
            properties.insert("kind".to_owned(), json!({ "const": kind.name }));
            let values = json!({ "type": "array", "minItems": 1, "uniqueItems": true });
            let values = json!({ "anyOf": [values, { "$ref": "#/$defs/Interpolated" }] });
            let cells =
                json!({ "type": "array", "items": { "type": "object", "minProperties": 1 } });
            let matrix = json!({
                "type": "object",
                "minProperties": 1,
                "properties": { "exclude": cells, "include": cells },
                "additionalProperties": values
            });
            properties.insert("matrix".to_owned(), matrix);
            properties.extend(common.clone());
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            schema["required"] = [json!("kind")].into_iter().chain(required).collect();
            schema
        })
        .collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "qpipe pipeline",
        "type": "object",
        "additionalProperties": false,
        "anyOf": [{ "required": ["stages"] }, { "required": ["extends"] }],
        "properties": {
            "extends": {
                "description": "Files that this one is put over, relative to it.",
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
            },
            "profiles": {
                "type": "object",
                "description": "Tables that --profile NAME puts over those of the file.",
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
            "params": { "type": "object", "description": "Values for ${params.NAME}." },
            "data": { "type": "object", "additionalProperties": data },
            "stages": { "type": "object", "minProperties": 1, "additionalProperties": { "oneOf": kinds } },
            "remote": remote,
            "slurm": slurm,
            "guards": { "type": "object", "additionalProperties": guard }
        },
        "$defs": defs
    })
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
    if object.contains_key("const") || object.get("type") == Some(&json!("string")) {
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
