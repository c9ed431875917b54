//! One tree put over another.

use std::collections::HashMap;

use super::tree::{Node, Table, Value};

/// Keys of which a table has one: it is a table of another form where the other has another.
const FORMS: [&str; 2] = ["arch", "onnx"];

/// Puts `upper` over `lower`: tables are merged key by key, everything else is replaced. A table of
/// another form, such as a stage or an optimizer of another `kind`, replaces the lower one whole:
/// what that said means nothing there.
pub(super) fn merge(lower: &mut Table, upper: Table) {
    if lower.entries.is_empty() {
        *lower = upper;
        return;
    }
    // A file may have thousands of stages.
    let places: HashMap<String, usize> =
        lower.entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    for entry in upper.entries {
        let Some(&at) = places.get(&entry.key) else {
            lower.entries.push(entry);
            continue;
        };
        let below = &mut lower.entries[at];
        below.place = entry.place;
        match (&mut below.node, entry.node) {
            (
                Node { value: Value::Table(lower), place, from, home },
                Node { value: Value::Table(upper), place: new, .. },
            ) if same_form(lower, &upper) => {
                (*place, *from, *home) = (new, None, new.source);
                merge(lower, upper);
            }
            (below, node) => *below = node,
        }
    }
}

fn same_form(lower: &Table, upper: &Table) -> bool {
    let word = |table: &Table| match table.get("kind").map(|entry| &entry.node.value) {
        Some(Value::Text(word)) => Some(word.clone()),
        _ => None,
    };
    let same_kind = word(upper).is_none_or(|kind| word(lower).is_none_or(|other| other == kind));
    let form = |table: &Table| FORMS.iter().position(|key| table.get(key).is_some());
    same_kind && form(upper).is_none_or(|key| form(lower).is_none_or(|other| other == key))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn merged(lower: &str, upper: &str) -> serde_json::Value {
        let mut tree = parse::document(lower, 0).expect("TOML");
        merge(&mut tree, parse::document(upper, 1).expect("TOML"));
        let place = super::super::tree::Place { source: 0, start: 0, end: 0 };
        Node::new(Value::Table(tree), place).to_json()
    }

    #[test]
    fn tables_are_merged_and_the_rest_is_replaced() {
        let lower = "a = { x = 1, y = [1, 2], z = { n = 1, m = 2 } }\nb = 1";
        let upper = "c = 3\n[a]\ny = [3]\nw = 4\n[a.z]\nn = 5";
        let expected = serde_json::json!({
            "a": { "x": 1, "y": [3], "z": { "n": 5, "m": 2 }, "w": 4 }, "b": 1, "c": 3
        });
        assert_eq!(merged(lower, upper), expected);
        assert_eq!(merged("a = { x = 1 }", "a = 2"), serde_json::json!({ "a": 2 }));
    }

    #[test]
    fn a_table_of_another_kind_keeps_nothing() {
        let lower = "o = { kind = \"sgd\", lr = 0.1, momentum = 0.9 }";
        let other = serde_json::json!({ "o": { "kind": "adamw", "lr": 0.2 } });
        assert_eq!(merged(lower, "o = { kind = \"adamw\", lr = 0.2 }"), other);
        let same = serde_json::json!({ "o": { "kind": "sgd", "lr": 0.2, "momentum": 0.9 } });
        assert_eq!(merged(lower, "o = { kind = \"sgd\", lr = 0.2 }"), same);
        assert_eq!(merged(lower, "o.lr = 0.2"), same);
        let model = serde_json::json!({ "m": { "onnx": "x.onnx" } });
        assert_eq!(
            merged("m = { arch = \"resnet18\", classes = 2 }", "m = { onnx = \"x.onnx\" }"),
            model
        );
    }
}
