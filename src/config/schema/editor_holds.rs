//! Tests of the schema for editors: it takes what the runner takes, and refuses what it can.

use serde_json::{Value as Json, json};

use super::editor_schema;

/// Whether a value is of a schema (JSON Schema, draft 7: the keywords that ours has).
fn fits(root: &Json, schema: &Json, value: &Json) -> bool {
    let Some(schema) = schema.as_object() else { return schema == &json!(true) };
    let own = |schema: &Json| fits(root, schema, value);
    if let Some(Json::String(reference)) = schema.get("$ref") {
        return own(root.pointer(reference.strip_prefix('#').unwrap()).expect(reference));
    }
    let number = |word: &Json| word.as_f64().unwrap();
    let length = |word: &Json| usize::try_from(word.as_u64().unwrap()).unwrap();
    let is = |name: &Json| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    schema.iter().all(|(key, word)| {
        let list = || word.as_array().unwrap().iter();
        match (key.as_str(), value) {
            ("$schema" | "$defs" | "title" | "description" | "default" | "format" | "else", _) => {
                true
            }
            ("type", _) => word.as_array().map_or_else(|| is(word), |all| all.iter().any(is)),
            ("const", _) => word == value,
            ("enum", _) => list().any(|one| one == value),
            ("anyOf", _) => list().any(own),
            ("oneOf", _) => list().filter(|one| own(one)).count() == 1,
            ("allOf", _) => list().all(own),
            ("not", _) => !own(word),
            ("if", _) => own(word) || own(&schema["else"]),
            ("pattern", Json::String(text)) => {
                regex::Regex::new(word.as_str().unwrap()).unwrap().is_match(text)
            }
            ("minLength", Json::String(text)) => text.chars().count() >= length(word),
            ("minimum", Json::Number(_)) => number(value) >= number(word),
            ("exclusiveMinimum", Json::Number(_)) => number(value) > number(word),
            ("maximum", Json::Number(_)) => number(value) <= number(word),
            ("exclusiveMaximum", Json::Number(_)) => number(value) < number(word),
            ("minItems", Json::Array(items)) => items.len() >= length(word),
            ("maxItems", Json::Array(items)) => items.len() <= length(word),
            ("uniqueItems", Json::Array(items)) => {
                (1..items.len()).all(|at| !items[..at].contains(&items[at]))
            }
            ("items", Json::Array(items)) => items.iter().all(|item| fits(root, word, item)),
            ("required", Json::Object(table)) => {
                list().all(|key| table.contains_key(key.as_str().unwrap()))
            }
            ("minProperties", Json::Object(table)) => table.len() >= length(word),
            ("propertyNames", Json::Object(table)) => {
                table.keys().all(|key| fits(root, word, &json!(key)))
            }
            ("properties", Json::Object(table)) => table
                .iter()
                .all(|(key, value)| word.get(key).is_none_or(|schema| fits(root, schema, value))),
            ("additionalProperties", Json::Object(table)) => table.iter().all(|(key, value)| {
                let known = schema.get("properties").is_some_and(|all| all.get(key).is_some());
                known || fits(root, word, value)
            }),
            (
                "pattern"
                | "minLength"
                | "minimum"
                | "exclusiveMinimum"
                | "maximum"
                | "exclusiveMaximum"
                | "minItems"
                | "maxItems"
                | "uniqueItems"
                | "items"
                | "required"
                | "minProperties"
                | "propertyNames"
                | "properties"
                | "additionalProperties",
                _,
            ) => true,
            (other, _) => panic!("keyword {other}"),
        }
    })
}

fn takes(schema: &Json, text: &str) -> bool {
    let file: toml::Table = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    fits(schema, schema, &serde_json::to_value(file).unwrap())
}

#[test]
fn it_takes_all_pipelines_of_the_project() {
    let schema: Json = serde_json::from_str(&editor_schema()).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // `NAME.layers.toml` is a part that a search has written.
        let part = path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains('.'));
        if path.extension().is_some_and(|ending| ending == "toml") && !part {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(takes(&schema, &text), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 10);
    let starter = include_str!("../../cli/starter.toml");
    assert!(takes(&schema, starter), "the starter");
}

/// A stage that is right but for the lines that are added.
const GOOD: &str = "[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs = { o = \"o\" }\n";

#[test]
fn it_takes_and_refuses_what_the_runner_does() {
    let schema: Json = serde_json::from_str(&editor_schema()).unwrap();
    let takes = |text: &str| takes(&schema, text);
    for more in [
        "",
        "matrix = \"${params.matrix}\"",
        "matrix = { n = \"${params.list}\" }",
        "matrix = { n = [\"${params.one}\", 6, 0.5, true], exclude = [{ n = 6 }], include = \"${params.more}\" }",
        "timeout = \"1 h 30 min\"",
        "timeout = \" 1.5h30min\"",
        "timeout = \"${params.time}\"",
        "timeout = 5",
        "retries = { count = 2, backoff = \"1 s\" }",
        "resources = { gpus = 0.5, memory = \"8 GB\", cpus = \"${params.cpus}\" }",
        "resources = { gpus = 2, memory = 8 }",
        "[guards.g]\nmetric = \"a.x\"\nmin = 1\nmax_drop = 1",
        "[guards.g]\nmetric = \"a[b.c,1].x.y\"\nbaseline = \"${params.figure}\"\nmax_drop = 1",
        "[profiles.p.stages.a]\nmatrix = {}",
    ] {
        assert!(takes(&format!("{GOOD}{more}")), "{more}");
    }
    for more in [
        "matrix = { n = [[1], [2]] }",
        "matrix = { n = [\"\"] }",
        "matrix = { \"a b\" = [1] }",
        "matrix = {}",
        "matrix = { n = [1, 1] }",
        "timeout = \"5 parsecs\"",
        "timeout = \"5\"",
        "resources = { memory = \"8 XB\" }",
        "resources = { gpus = 1.5 }",
        "resources = { gpus = -1 }",
        "[stages.\"a b\"]\nkind = \"command\"\nrun = \"true\"\noutputs = { o = \"o\" }",
        "[stages.data]\nkind = \"command\"\nrun = \"true\"\noutputs = { o = \"o\" }",
        "[params]\n\"a b\" = 1",
        "[profiles.\"a b\".params]\na = 1",
        "[data.\"a b\"]\nformat = \"image-folder\"\npath = \"d\"",
        "[data.d]\nformat = \"image-folder\"",
        "[guards.\"a b\"]\nmetric = \"a.x\"\nmin = 1",
        "[guards.g]\nmetric = \"a.x\"",
        "[guards.g]\nmetric = \"a\"\nmin = 1",
        "[guards.g]\nmetric = \"a.x\"\nmin = 1\nmax = 2\nmax_drop = 1",
        "[remote]\nmode = \"read-only\"",
        "[stages.b]\nrun = \"true\"",
    ] {
        assert!(!takes(&format!("{GOOD}{more}")), "{more}");
    }
    let outputs = |outputs: &str| {
        takes(&format!("[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs = {outputs}\n"))
    };
    for good in ["a", "a/b.c", "..a", "a b", ".a", "...", "${params.o}"] {
        assert!(outputs(&format!("{{ o = \"{good}\" }}")), "{good}");
        assert!(outputs(&format!("{{ o = {{ file = \"{good}\", type = \"file\" }} }}")), "{good}");
    }
    for bad in ["", "/a", "..", "a/../b", "../a", "./a", "a/./b", "a//b", "a/"] {
        assert!(!outputs(&format!("{{ o = \"{bad}\" }}")), "{bad}");
        assert!(!outputs(&format!("{{ o = {{ file = \"{bad}\", type = \"file\" }} }}")), "{bad}");
    }
    assert!(!outputs("{}"));
    let train = |device: &str| {
        takes(&format!(
            "[stages.a]\nkind = \"evaluate\"\nmodel = \"m\"\ndata = \"data.d\"\ndevice = \"{device}\"\n"
        ))
    };
    assert!(["auto", "cpu", "cuda", "cuda:15", "${params.d}"].into_iter().all(train));
    assert!(!["gpu", "", "cuda:", "cuda:12345"].into_iter().any(train));
    // What a file that extends others does not repeat stands in those.
    assert!(takes(
        "extends = \"base.toml\"\n[stages.a]\noutputs = {}\nmatrix = {}\n[guards.g]\nmax = 3\n"
    ));
    assert!(takes(
        "extends = \"base.toml\"\n[stages.a]\noptimizer = { lr = 0.1 }\n[remote]\nmode = \"read-only\"\n"
    ));
    assert!(takes("extends = \"base.toml\"\n[data.d]\nlimit = 5\n"));
    assert!(!takes("extends = \"base.toml\"\n[stages.a]\noptimizer = { rate = 0.1 }\n"));
    assert!(!takes("extends = \"base.toml\"\n[stages.a]\nkind = \"command\"\nepochs = 1\n"));
    assert!(!takes("[params]\na = 1\n"));
}
