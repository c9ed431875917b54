//! The key of an action: everything that its result depends on, and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    pub config: serde_json::Value,
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
        let mut canonical = serde_json::to_value(self).expect("a key serialises to JSON");
        // Whether serde_json sorts maps depends on features that other crates may switch on.
        canonical.sort_all_objects();
        Digest::of(canonical.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
