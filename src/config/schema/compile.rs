//! From schemars' JSON to [`Schema`], once a kind and process.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use schemars::JsonSchema;
use serde_json::{Map, Value as Json};

use super::shape::{Field, Fields, Range, Schema, Shape, Variant, Word};
use crate::config::guards::GuardTable;
use crate::config::remote::RemoteTable;
use crate::config::slurm::Slurm;
use crate::stages::contract::Kind;
use crate::stages::data::DataSpec;
use crate::stages::execution::ExecutionTable;

/// The keys of a stage's table: those of its kind, then those that every stage may have, `kind` and
/// `matrix` left out.
pub(in crate::config) fn stage(kind: &'static Kind) -> &'static Fields {
    static KINDS: Mutex<BTreeMap<&str, &'static Fields>> = Mutex::new(BTreeMap::new());
    let mut kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    // There are as many as kinds, and they are needed to the end.
    kinds.entry(kind.name).or_insert_with(|| {
        let mut fields = self::kind(kind);
        fields.known.extend(execution().known);
        Box::leak(Box::new(fields))
    })
}

/// The keys of a stage kind alone.
pub(super) fn kind(kind: &'static Kind) -> Fields {
    fields(&(kind.schema)())
}

/// The keys that every stage may have.
pub(super) fn execution() -> Fields {
    fields(&schemars::schema_for!(ExecutionTable))
}

/// The keys of a `[data.NAME]` table.
pub(in crate::config) fn data() -> &'static Fields {
    static DATA: OnceLock<Fields> = OnceLock::new();
    DATA.get_or_init(|| fields(&schemars::schema_for!(DataSpec)))
}

/// The keys of `[pipeline]`.
pub(in crate::config) fn pipeline() -> &'static Fields {
    static PIPELINE: OnceLock<Fields> = OnceLock::new();
    PIPELINE.get_or_init(|| fields(&schemars::schema_for!(PipelineTable)))
}

/// The keys of `[remote]`.
pub(in crate::config) fn remote() -> &'static Fields {
    static REMOTE: OnceLock<Fields> = OnceLock::new();
    REMOTE.get_or_init(|| fields(&schemars::schema_for!(RemoteTable)))
}

/// The keys of `[slurm]`.
pub(in crate::config) fn slurm() -> &'static Fields {
    static SLURM: OnceLock<Fields> = OnceLock::new();
    SLURM.get_or_init(|| fields(&schemars::schema_for!(Slurm)))
}

/// The keys of a `[guards.NAME]` table.
pub(in crate::config) fn guard() -> &'static Fields {
    static GUARD: OnceLock<Fields> = OnceLock::new();
    GUARD.get_or_init(|| fields(&schemars::schema_for!(GuardTable)))
}

/// The `[pipeline]` table.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct PipelineTable {
    /// Name of the pipeline, for reports and the lock file. Default: the file's name.
    #[schemars(length(min = 1))]
    name: Option<String>,
    /// Seed of all randomness.
    #[schemars(default)]
    seed: u64,
}

fn fields(schema: &schemars::Schema) -> Fields {
    let empty = Map::new();
    let root = schema.as_object().unwrap_or(&empty);
    let defs = root.get("$defs").and_then(Json::as_object).unwrap_or(&empty);
    Compiler { defs }.fields(root)
}

struct Compiler<'s> {
    defs: &'s Map<String, Json>,
}

impl Compiler<'_> {
    fn schema(&self, json: &Json) -> Schema {
        let Some(object) = json.as_object() else {
            return Schema::of(Shape::Any);
        };
        let target = object.get("$ref").and_then(Json::as_str);
        let special = match target {
            Some("#/$defs/Ref") => Some(Shape::Reference),
            Some("#/$defs/InputPath") => Some(Shape::Path),
            _ => None,
        };
        let name = target.and_then(|target| target.strip_prefix("#/$defs/"));
        let target = name.and_then(|name| self.defs.get(name));
        let mut schema = match target.or_else(|| optional(object)) {
            Some(target) => self.schema(target),
            None => Schema::of(self.shape(object)),
        };
        if let Some(name) = name {
            schema.name = Some(name.to_owned());
        }
        if let Some(special) = special {
            schema.shape = special;
        }
        if let Some(doc) = object.get("description").and_then(Json::as_str) {
            schema.doc = doc.to_owned();
        }
        if let Some(default) = object.get("default") {
            schema.default = Some(default.clone()).filter(|default| !default.is_null());
        }
        schema
    }

    fn shape(&self, object: &Map<String, Json>) -> Shape {
        for choice in ["oneOf", "anyOf"] {
            if let Some(choices) = object.get(choice).and_then(Json::as_array) {
                return self.choice(choices);
            }
        }
        if let Some(word) = object.get("const").and_then(Json::as_str) {
            return Shape::Words(vec![Word { word: word.to_owned(), doc: doc(object) }]);
        }
        if let Some(words) = object.get("enum").and_then(Json::as_array) {
            let words = words.iter().filter_map(Json::as_str);
            let word = |word: &str| Word { word: word.to_owned(), doc: String::new() };
            return Shape::Words(words.map(word).collect());
        }
        match type_of(object) {
            Some("string") => Shape::Text { min_length: count(object, "minLength", 0) },
            Some("integer") => Shape::Integer(range(object)),
            Some("number") => Shape::Number(range(object)),
            Some("boolean") => Shape::Boolean,
            Some("array") => Shape::List {
                items: Box::new(self.schema(object.get("items").unwrap_or(&Json::Null))),
                min: count(object, "minItems", 0),
                max: count(object, "maxItems", usize::MAX),
            },
            Some("object") => Shape::Table(self.fields(object)),
            _ => Shape::Any,
        }
    }

    fn choice(&self, choices: &[Json]) -> Shape {
        let schemas: Vec<Schema> =
            choices.iter().filter(|json| !is_null(json)).map(|json| self.schema(json)).collect();
        let all_words = |schema: &Schema| matches!(schema.shape, Shape::Words(_));
        if schemas.iter().all(all_words) {
            let words = schemas.into_iter().flat_map(|schema| match schema.shape {
                Shape::Words(words) => words,
                _ => Vec::new(),
            });
            return Shape::Words(words.collect());
        }
        tagged(&schemas).or_else(|| keyed(&schemas)).unwrap_or(Shape::Either(schemas))
    }

    fn fields(&self, object: &Map<String, Json>) -> Fields {
        let required: Vec<&str> = object
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let empty = Map::new();
        let properties = object.get("properties").and_then(Json::as_object).unwrap_or(&empty);
        let field = |(name, json): (&String, &Json)| Field {
            name: name.clone(),
            required: required.contains(&name.as_str()),
            schema: self.schema(json),
        };
        let rest = match object.get("additionalProperties") {
            Some(Json::Bool(false)) => None,
            Some(json) => Some(Box::new(self.schema(json))),
            None => Some(Box::new(self.schema(&Json::Null))),
        };
        Fields { known: properties.iter().map(field).collect(), rest }
    }
}

fn is_null(json: &Json) -> bool {
    json.get("type").and_then(Json::as_str) == Some("null")
}

/// What an optional value is where it is given: TOML has no null.
fn optional(object: &Map<String, Json>) -> Option<&Json> {
    match object.get("anyOf")?.as_array()?.as_slice() {
        [given, null] if is_null(null) => Some(given),
        _ => None,
    }
}

/// serde's internally tagged enum: tables that differ by one constant key, which comes first.
fn tagged(schemas: &[Schema]) -> Option<Shape> {
    let mut tag = None;
    let mut variants = Vec::new();
    for schema in schemas {
        let Shape::Table(fields) = &schema.shape else { return None };
        let (first, others) = fields.known.split_first()?;
        let Shape::Words(words) = &first.schema.shape else { return None };
        let [word] = words.as_slice() else { return None };
        if tag.is_some_and(|tag| tag != first.name) {
            return None;
        }
        tag = Some(first.name.as_str());
        variants.push(Variant {
            word: word.word.clone(),
            doc: schema.doc.clone(),
            fields: Fields { known: others.to_vec(), rest: fields.rest.clone() },
        });
    }
    Some(Shape::Tagged { tag: tag?.to_owned(), variants })
}

/// serde's externally tagged enum: tables with one required key each.
fn keyed(schemas: &[Schema]) -> Option<Shape> {
    let mut keys: Vec<Field> = Vec::new();
    for schema in schemas {
        let Shape::Table(Fields { known, rest: None }) = &schema.shape else { return None };
        let [field] = known.as_slice() else { return None };
        if !field.required || keys.iter().any(|key| key.name == field.name) {
            return None;
        }
        let mut field = field.clone();
        field.schema.doc.clone_from(&schema.doc);
        keys.push(field);
    }
    Some(Shape::Keyed(keys))
}

fn doc(object: &Map<String, Json>) -> String {
    object.get("description").and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// The type; `null`, which TOML does not have, is left out.
fn type_of(object: &Map<String, Json>) -> Option<&str> {
    match object.get("type")? {
        Json::String(name) => Some(name),
        Json::Array(names) => names.iter().filter_map(Json::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

fn count(object: &Map<String, Json>, key: &str, otherwise: usize) -> usize {
    let number = object.get(key).and_then(Json::as_u64);
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(otherwise)
}

fn range(object: &Map<String, Json>) -> Range {
    let bound = |key: &str| object.get(key).and_then(Json::as_f64);
    let largest = match object.get("format").and_then(Json::as_str) {
        Some("uint8") => Some(f64::from(u8::MAX)),
        Some("uint16") => Some(f64::from(u16::MAX)),
        Some("uint32") => Some(f64::from(u32::MAX)),
        Some("int32") => Some(f64::from(i32::MAX)),
        _ => None,
    };
    Range {
        min: bound("minimum"),
        max: bound("maximum").or(largest),
        above: bound("exclusiveMinimum"),
    }
}
