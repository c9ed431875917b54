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
