//! Why a stage runs: its new key against the one it had last.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::inputs::Inputs;
use super::past::Known;
use crate::cache::{ActionKey, Digest, FileChanges};
use crate::config::{Origin, Pipeline, StageCell};

/// One thing in which two keys of a stage differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What changed: a configuration's key, an input, a fact of the machine.
    pub what: String,
    /// Its value before; `null` where it was not there.
    pub old: Option<String>,
    /// Its value now; `null` where it is not there.
    pub new: Option<String>,
    /// In which files a folder or data set differs, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileChanges>,
    /// In a few words, on part of a line.
    #[serde(skip)]
    short: String,
}

impl Change {
    /// The change on a line of its own, whole values.
    pub fn text(&self) -> String {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let Self { what, old, new, files, .. } = self;
        let files = files.as_ref().map(|files| format!(" ({})", files.text())).unwrap_or_default();
        format!("{what}: {} → {}{files}", value(old), value(new))
    }
}

/// One line on why a stage runs: `changes` since its last success, of which `old` is known.
pub fn explain(changes: &[Change], old: Option<&Known>) -> String {
    let Some(Known { record, .. }) = old else { return "never ran".to_owned() };
    match changes {
        [] if record.is_none() => "never ran here; the lock file knows its result".to_owned(),
        [] => "its record is gone from the cache".to_owned(),
        [one] => one.short.clone(),
        [one, two] => format!("{}; {}", one.short, two.short),
        [one, two, more @ ..] => format!("{}; {}; and {} more", one.short, two.short, more.len()),
    }
}

/// As [`changes`], with the files in which inputs differ, as far as is known.
pub fn changes_with_files(
    inputs: &Inputs,
    pipeline: &Pipeline,
    cell: &StageCell,
    new: &ActionKey,
    old: &ActionKey,
) -> Vec<Change> {
    let mut found = changes(pipeline, Some(cell), new, old);
    for input in &cell.inputs {
        let (Some(before), Some(after)) =
            (old.inputs.get(&input.port), new.inputs.get(&input.port))
        else {
            continue;
        };
        if before == after {
            continue;
        }
        let what = self::input(pipeline, Some(cell), &input.port, "changed");
        let (was, is) = (Some(before.short()), Some(after.short()));
        // What stands at several ports is one change, of which the files are told once.
        let change = found
            .iter_mut()
            .find(|change| change.what == what && change.old == was && change.new == is);
        let Some(change) = change.filter(|change| change.files.is_none()) else { continue };
        change.files = inputs.difference(pipeline, &input.origin, before);
        if let Some(files) = &change.files {
            change.short.push_str(&format!(" ({})", files.counts()));
        }
        if let Origin::Data(name) = &input.origin
            && let (Some(old), Some(new)) = (inputs.described(before), inputs.described(after))
        {
            let mut of_table = Vec::new();
            differences(&format!("data.{name}"), &old["spec"], &new["spec"], &mut of_table);
            // Nothing but its table has changed.
            if old["paths"] == new["paths"] && old["images"] == new["images"] {
                found.retain(|change| change.what != what);
            }
            found.extend(of_table);
        }
    }
    found
}

/// All in which the key `new` of a stage differs from the key `old`, whole values. `cell`: the stage,
/// where the pipeline still has it.
pub fn changes(
    pipeline: &Pipeline,
    cell: Option<&StageCell>,
    new: &ActionKey,
    old: &ActionKey,
) -> Vec<Change> {
    let simple = |what: &str, old: String, new: String| Change {
        what: what.to_owned(),
        short: format!("{what} {old} → {new}"),
        old: Some(old),
        new: Some(new),
        files: None,
    };
    if old.kind != new.kind {
        return vec![simple("kind", old.kind.clone(), new.kind.clone())];
    }
    let mut found = Vec::new();
    if old.kind_version != new.kind_version {
        let (old, new) = (old.kind_version.to_string(), new.kind_version.to_string());
        found.push(simple("kind version", old, new));
    }
    differences("", &old.config, &new.config, &mut found);
    if old.seed != new.seed {
        let short = format!("seed: {} → {}", old.seed, new.seed);
        let (old, new) = (old.seed.to_string(), new.seed.to_string());
        found.push(Change { short, ..simple("seed", old, new) });
    }
    let change = |short: String, old: Option<&Digest>, new: Option<&Digest>| Change {
        what: short.clone(),
        old: old.map(Digest::short),
        new: new.map(Digest::short),
        files: None,
        short,
    };
    for (port, digest) in &new.inputs {
        match old.inputs.get(port) {
            Some(before) if before == digest => {}
            Some(before) => {
                let short = input(pipeline, cell, port, "changed");
                let change = change(short, Some(before), Some(digest));
                // One data set for training and validation changed once.
                if !found.contains(&change) {
                    found.push(change);
                }
            }
            None => found.push(change(input(pipeline, cell, port, "is new"), None, Some(digest))),
        }
    }
    for (port, digest) in old.inputs.iter().filter(|(port, _)| !new.inputs.contains_key(*port)) {
        found.push(change(format!("input {port} is gone"), Some(digest), None));
    }
    for (name, value) in &new.facts {
        let before = old.facts.get(name);
        if before != Some(value) {
            found.push(Change {
                what: name.clone(),
                old: before.cloned(),
                new: Some(value.clone()),
                files: None,
                short: format!("{name} changed"),
            });
        }
    }
    for (name, value) in old.facts.iter().filter(|(name, _)| !new.facts.contains_key(*name)) {
        let short = format!("{name} no longer matters");
        let (what, old) = (name.clone(), Some(value.clone()));
        found.push(Change { what, old, new: None, files: None, short });
    }
    if old.format != new.format {
        let (old, new) = (old.format.to_string(), new.format.to_string());
        let short = "written by another version of qpipe".to_owned();
        found.push(Change { short, ..simple("format of keys", old, new) });
    }
    found
}

/// What stands at a port, in words.
pub(super) fn input(
    pipeline: &Pipeline,
    cell: Option<&StageCell>,
    port: &str,
    how: &str,
) -> String {
    let inputs = cell.map_or(&[][..], |cell| &cell.inputs);
    let origin = inputs.iter().find(|input| input.port == port).map(|input| &input.origin);
    let how = if how.is_empty() { String::new() } else { format!(" {how}") };
    match origin {
        Some(Origin::Stage { id, .. }) => format!("input {port}{how} (from {id})"),
        Some(Origin::Data(name)) => format!("data {name}{how}"),
        Some(Origin::Path(path)) => {
            let path = path.strip_prefix(&pipeline.folder).unwrap_or(path);
            format!("file {}{how}", path.display())
        }
        None => format!("input {port}{how}"),
    }
}

/// The leaves in which two configurations differ: `optimizer.lr: 0.1 → 0.2`.
fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<Change>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => differences(&below(key), old, new, found),
                    (None, Some(new)) => found.push(Change {
                        short: format!("{}: {} added", below(key), brief(new)),
                        what: below(key),
                        old: None,
                        new: Some(whole(new)),
                        files: None,
                    }),
                    (Some(old), None) => found.push(Change {
                        short: format!("{}: {} removed", below(key), brief(old)),
                        what: below(key),
                        old: Some(whole(old)),
                        new: None,
                        files: None,
                    }),
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
        _ if old != new => found.push(Change {
            short: format!("{path}: {}", apart(&whole(old), &whole(new))),
            what: path.to_owned(),
            old: Some(whole(old)),
            new: Some(whole(new)),
            files: None,
        }),
        _ => {}
    }
}

/// A value as a text, a string without quotes.
fn whole(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value on part of a line.
fn brief(value: &Value) -> String {
    cut(&whole(value), 0)
}

/// Two values that differ on part of a line, so that it is seen in what.
fn apart(old: &str, new: &str) -> String {
    let (from_start, to_start) = (cut(old, 0), cut(new, 0));
    if from_start != to_start {
        return format!("{from_start} → {to_start}");
    }
    // Some of what is the same, then the first difference.
    const BEFORE: usize = 10;
    let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    let skipped = same.saturating_sub(BEFORE);
    format!("{} → {}", cut(old, skipped), cut(new, skipped))
}

/// A text from a letter on, with marks where it was cut.
fn cut(text: &str, skipped: usize) -> String {
    const WIDTH: usize = 40;
    let rest: Vec<char> = text.replace(['\n', '\r'], " ").chars().skip(skipped).collect();
    let kept = if rest.len() > WIDTH { &rest[..WIDTH - 1] } else { &rest[..] };
    let mark = |is: bool| if is { "…" } else { "" };
    let text: String = kept.iter().collect();
    format!("{}{text}{}", mark(skipped > 0), mark(kept.len() < rest.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reasons(old: &Value, new: &Value) -> Vec<String> {
        let mut found = Vec::new();
        differences("", old, new, &mut found);
        found.into_iter().map(|change| change.short).collect()
    }

    #[test]
    fn long_texts_are_told_from_their_first_difference_on() {
        let long =
            |end: &str| json!({ "run": format!("{}{end}", "find . -name '*.png' ".repeat(4)) });
        assert_eq!(
            reasons(&long("| sort"), &long("| sort -r")),
            ["run: …ng' | sort → …ng' | sort -r"]
        );
        assert_eq!(
            reasons(&json!({ "run": "a\nb" }), &json!({ "run": "a b" })),
            ["run: a b → a b"]
        );
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
