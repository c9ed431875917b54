//! Why a stage runs: its new key against the one it had last.

use serde_json::Value;

use crate::cache::ActionKey;
use crate::config::{Origin, Pipeline, StageCell};

/// One line on why a stage with key `new` runs, where `old` is the key of its last success.
pub fn explain(
    pipeline: &Pipeline,
    cell: &StageCell,
    new: &ActionKey,
    old: Option<&ActionKey>,
) -> String {
    let Some(old) = old else { return "never ran".to_owned() };
    let mut reasons = Vec::new();
    if old.kind != new.kind {
        return format!("kind {} → {}", old.kind, new.kind);
    }
    if old.kind_version != new.kind_version {
        reasons.push(format!("kind version {} → {}", old.kind_version, new.kind_version));
    }
    differences("", &old.config, &new.config, &mut reasons);
    if old.seed != new.seed {
        reasons.push(format!("seed: {} → {}", old.seed, new.seed));
    }
    for (port, digest) in &new.inputs {
        match old.inputs.get(port) {
            Some(before) if before == digest => {}
            Some(_) => reasons.push(input(pipeline, cell, port, "changed")),
            None => reasons.push(input(pipeline, cell, port, "is new")),
        }
    }
    for port in old.inputs.keys().filter(|port| !new.inputs.contains_key(*port)) {
        reasons.push(format!("input {port} is gone"));
    }
    for (name, value) in &new.facts {
        if old.facts.get(name) != Some(value) {
            reasons.push(format!("{name} changed"));
        }
    }
    if old.format != new.format {
        reasons.push("written by another version of qpipe".to_owned());
    }
    match reasons.as_slice() {
        [] => "its record is gone from the cache".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one}; {two}"),
        [one, two, more @ ..] => format!("{one}; {two}; and {} more", more.len()),
    }
}

fn input(pipeline: &Pipeline, cell: &StageCell, port: &str, how: &str) -> String {
    let origin = cell.inputs.iter().find(|input| input.port == port).map(|input| &input.origin);
    match origin {
        Some(Origin::Stage { id, .. }) => format!("input {port} {how} (from {id})"),
        Some(Origin::Data(name)) => format!("data {name} {how}"),
        Some(Origin::Path(path)) => {
            let path = path.strip_prefix(&pipeline.folder).unwrap_or(path);
            format!("file {} {how}", path.display())
        }
        None => format!("input {port} {how}"),
    }
}

/// The leaves in which two configurations differ: `optimizer.lr: 0.1 → 0.2`.
fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => differences(&below(key), old, new, found),
                    (None, Some(new)) => {
                        found.push(format!("{}: {} added", below(key), brief(new)))
                    }
                    (Some(old), None) => {
                        found.push(format!("{}: {} removed", below(key), brief(old)));
                    }
                    (None, None) => {}
                }
            }
        }
        (Value::Array(old), Value::Array(new))
            if old.len() == new.len() && old.iter().any(Value::is_object) =>
        {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&below(&index.to_string()), old, new, found);
            }
        }
        _ if old != new => found.push(format!("{path}: {} → {}", brief(old), brief(new))),
        _ => {}
    }
}

/// A value on part of a line.
fn brief(value: &Value) -> String {
    const WIDTH: usize = 40;
    let text = match value {
        Value::String(text) => text.replace(['\n', '\r'], " "),
        _ => value.to_string(),
    };
    if text.chars().count() <= WIDTH {
        return text;
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reasons(old: &Value, new: &Value) -> Vec<String> {
        let mut found = Vec::new();
        differences("", old, new, &mut found);
        found
    }

    #[test]
    fn leaves_are_compared_not_order() {
        let old = json!({"epochs": 2, "optimizer": {"kind": "sgd", "lr": 0.1}, "same": [1, 2]});
        let new = json!({"same": [1, 2], "optimizer": {"lr": 0.2, "kind": "sgd"}, "epochs": 3});
        assert_eq!(reasons(&old, &new), ["epochs: 2 → 3", "optimizer.lr: 0.1 → 0.2"]);
        let old = json!({"transform": [{"resize": 8}, {"flip": 0.5}], "gone": true});
        let new = json!({"transform": [{"resize": 9}, {"flip": 0.5}], "long": "x".repeat(50)});
        let long = format!("long: {}… added", "x".repeat(39));
        let expected = ["gone: true removed", &long, "transform.0.resize: 8 → 9"];
        assert_eq!(reasons(&old, &new), expected);
    }
}
