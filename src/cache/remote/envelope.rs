//! A record on its way: in an envelope that tells whether it arrived whole, and checked to be of the
//! key that was asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::failure::printable;

use crate::cache::{ActionRecord, Digest, is_inside};

/// A record that a remote has.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The record.
    pub record: ActionRecord,
    /// Objects among its outputs that are programs: digests do not cover permissions.
    pub executable: BTreeSet<Digest>,
}

/// The file in the remote.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    /// Digest of `content`'s bytes.
    sha256: Digest,
    content: String,
}

/// What is in the envelope.
#[derive(Serialize, Deserialize)]
struct Content {
    record: ActionRecord,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    executable: BTreeSet<Digest>,
}

const FORMAT: u32 = 1;

/// Most outputs of a record.
const OUTPUTS: usize = 10_000;

/// The file of a record.
pub(super) fn seal(record: &ActionRecord, executable: BTreeSet<Digest>) -> Vec<u8> {
    let content = Content { record: record.clone(), executable };
    let content = serde_json::to_string(&content).expect("a record serialises to JSON");
    let envelope = Envelope { format: FORMAT, sha256: Digest::of(content.as_bytes()), content };
    let mut json = serde_json::to_vec_pretty(&envelope).expect("an envelope serialises to JSON");
    json.push(b'\n');
    json
}

/// The record in a file, if it is one of `key`; what is wrong with it otherwise.
pub(super) fn open(bytes: &[u8], key: &Digest) -> Result<Fetched, String> {
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|error| format!("it is not readable ({error})"))?;
    if envelope.format != FORMAT {
        return Err(format!("it has format {}, this version reads {FORMAT}", envelope.format));
    }
    if Digest::of(envelope.content.as_bytes()) != envelope.sha256 {
        return Err("its content does not have its digest".to_owned());
    }
    let content: Content = serde_json::from_str(&envelope.content)
        .map_err(|error| format!("its content is not readable ({error})"))?;
    let mut record = content.record;
    if record.key.digest() != *key {
        return Err("it belongs to another key".to_owned());
    }
    if record.outputs.len() > OUTPUTS {
        return Err(format!("it has more than {OUTPUTS} outputs"));
    }
    if let Some(port) = record
        .outputs
        .iter()
        .find_map(|(port, output)| (!is_inside(&output.file) || !is_inside(port)).then_some(port))
    {
        let port = printable(port, 40);
        return Err(format!("the file of its output `{port}` is not in the stage's folder"));
    }
    if !record.seconds.is_finite() || record.seconds < 0.0 {
        return Err("its duration is none".to_owned());
    }
    // They are shown in terminals.
    for text in record.warnings.iter_mut().chain([
        &mut record.started,
        &mut record.stage,
        &mut record.host,
        &mut record.version,
    ]) {
        if text.contains(|character: char| character.is_control() && character != '\n') {
            *text = printable(text, usize::MAX);
        }
    }
    Ok(Fetched { record, executable: content.executable })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::{ActionKey, StoredOutput};
    use crate::stages::contract::PortType;

    /// A record with one output.
    pub(in crate::cache::remote) fn record(file: &str, seed: u64) -> ActionRecord {
        let output = StoredOutput {
            digest: Digest::of(b"content"),
            kind: PortType::File,
            file: file.to_owned(),
            directory: false,
            bytes: 7,
        };
        ActionRecord {
            key: ActionKey {
                format: ActionKey::FORMAT,
                kind: "command".to_owned(),
                kind_version: 1,
                config: serde_json::json!({"lr": 0.1}),
                inputs: BTreeMap::new(),
                seed,
                facts: BTreeMap::new(),
            },
            outputs: BTreeMap::from([("out".to_owned(), output)]),
            metrics: BTreeMap::new(),
            warnings: vec!["one\u{1b}[31m".to_owned()],
            started: "2025-01-01T00:00:00Z".to_owned(),
            seconds: 0.5,
            stage: "p/a".to_owned(),
            host: "h".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_record_reads_back_without_what_a_terminal_would_obey() {
        let mut record = record("a/b", 1);
        let key = record.key.digest();
        let executable = BTreeSet::from([Digest::of(b"content")]);
        let fetched = open(&seal(&record, executable.clone()), &key).unwrap();
        record.warnings[0] = "one [31m".to_owned();
        assert_eq!(fetched, Fetched { record, executable });
    }

    #[test]
    fn what_is_not_the_record_of_the_key_is_refused() {
        let honest = record("out", 1);
        let key = honest.key.digest();
        let sealed = seal(&honest, BTreeSet::new());
        let text = String::from_utf8(sealed.clone()).unwrap();
        let refused = |bytes: &[u8], part: &str| {
            let reason = open(bytes, &key).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(&seal(&record("out", 2), BTreeSet::new()), "another key");
        refused(&seal(&record("../out", 1), BTreeSet::new()), "not in the stage's folder");
        refused(&seal(&record("/etc/out", 1), BTreeSet::new()), "not in the stage's folder");
        refused(&sealed[..sealed.len() / 2], "not readable");
        refused(text.replace("0.5", "0.6").as_bytes(), "does not have its digest");
        refused(text.replace("\"format\": 1", "\"format\": 2").as_bytes(), "format 2");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        refused(deep.as_bytes(), "not readable");
    }

    proptest! {
        #[test]
        fn no_byte_changed_is_accepted_as_another_record(at in 0..4000_usize, to in any::<u8>()) {
            let honest = record("out", 1);
            let key = honest.key.digest();
            let mut sealed = seal(&honest, BTreeSet::new());
            let expected = open(&sealed, &key).unwrap();
            let at = at % sealed.len();
            sealed[at] = to;
            if let Ok(fetched) = open(&sealed, &key) {
                prop_assert_eq!(fetched, expected);
            }
        }
    }
}
