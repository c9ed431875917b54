//! The key of an action: everything that its result depends on, and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Digest;

/// Everything that a stage's result depends on.
///
/// Its canonical form is its JSON: struct fields in this order, all maps sorted. [`Self::FORMAT`]
/// is raised with any change of that form; a golden test pins a literal key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionKey {
    /// [`Self::FORMAT`].
    pub format: u32,
    /// Kind of the stage.
    pub kind: String,
    /// Version of the kind.
    pub kind_version: u32,
    /// Semantic configuration: no names, comments or order.
    pub config: Value,
    /// Digest of what stands at each port; a data set's is that of its description and contents.
    pub inputs: BTreeMap<String, Digest>,
    /// Seed of all randomness.
    pub seed: u64,
    /// Facts of the machine that matter to the kind: name → value.
    pub facts: BTreeMap<String, String>,
}

impl ActionKey {
    /// Version of the canonical form.
    pub const FORMAT: u32 = 1;

    /// The key's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(self.canonical().as_bytes())
    }

    /// JSON without spaces, the keys of all maps in alphabetical order.
    fn canonical(&self) -> String {
        let Self { format, kind, kind_version, config, inputs, seed, facts } = self;
        let mut text = String::with_capacity(512);
        text.push_str("{\"config\":");
        write_sorted(config, &mut text);
        text.push_str(",\"facts\":{");
        for (position, (name, value)) in facts.iter().enumerate() {
            text.push_str(if position > 0 { "," } else { "" });
            write_text(name, &mut text);
            text.push(':');
            write_text(value, &mut text);
        }
        text.push_str(&format!("}},\"format\":{format},\"inputs\":{{"));
        for (position, (port, digest)) in inputs.iter().enumerate() {
            text.push_str(if position > 0 { "," } else { "" });
            write_text(port, &mut text);
            text.push_str(":\"");
            text.push_str(&digest.hex());
            text.push('"');
        }
        text.push_str("},\"kind\":");
        write_text(kind, &mut text);
        text.push_str(&format!(",\"kind_version\":{kind_version},\"seed\":{seed}}}"));
        text
    }
}

/// A value's JSON without spaces, the keys of its tables in alphabetical order.
pub(super) fn sorted(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    text
}

/// A value's JSON without spaces, the keys of its tables in alphabetical order. (Whether serde_json
/// itself sorts them depends on features that other crates may switch on.)
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                text.push_str(if position > 0 { "," } else { "" });
                write_text(key, text);
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (position, value) in values.iter().enumerate() {
                text.push_str(if position > 0 { "," } else { "" });
                write_sorted(value, text);
            }
            text.push(']');
        }
        Value::String(value) => write_text(value, text),
        other => text.push_str(&other.to_string()),
    }
}

fn write_text(value: &str, text: &mut String) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_serdes_sorted() {
        let config =
            r#"{"z": [1, -2.5, 1e300, "x\ny\u007f\u00e9"], "": {"d": null, "\"c\\": true}}"#;
        let key = ActionKey {
            format: ActionKey::FORMAT,
            kind: "odd \"kind\"".to_owned(),
            kind_version: 3,
            config: serde_json::from_str(config).unwrap(),
            inputs: [("b".to_owned(), Digest::of(b"1")), ("a".to_owned(), Digest::of(b"2"))].into(),
            seed: u64::MAX,
            facts: [("cpu".to_owned(), "a\tb".to_owned())].into(),
        };
        let mut value = serde_json::to_value(&key).unwrap();
        value.sort_all_objects();
        assert_eq!(key.canonical(), value.to_string());
    }

    /// If this fails, keys changed: every user's cache is void. Raise [`ActionKey::FORMAT`] if
    /// that is meant, and pin the new digest.
    #[test]
    fn a_key_is_pinned() {
        let config = r#"{"z": [1, 2.5, "x"], "a": {"d": null, "c": true}, "lr": 0.0001}"#;
        let mut key = ActionKey {
            format: ActionKey::FORMAT,
            kind: "train".to_owned(),
            kind_version: 3,
            config: serde_json::from_str(config).unwrap(),
            inputs: [("train".to_owned(), Digest::of(b"data"))].into(),
            seed: 42,
            facts: [("cpu".to_owned(), "one".to_owned())].into(),
        };
        let pinned = "0dbacfc950789be8d9bbdd043cd3be6a515a8724395a6cea4a248f9c534f97dd";
        assert_eq!(key.digest().hex(), pinned);
        let other = r#"{"lr": 1e-4, "a": {"c": true, "d": null}, "z": [1, 2.5, "x"]}"#;
        key.config = serde_json::from_str(other).unwrap();
        assert_eq!(key.digest().hex(), pinned, "order of keys does not matter");
        key.seed = 43;
        assert_ne!(key.digest().hex(), pinned);
    }
}
