//! The manifest of a bundle: all that is in it, with sizes and digests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cache::{ActionRecord, Digest, is_inside};

/// Name of the manifest in the archive.
pub(super) const MANIFEST: &str = "manifest.json";

/// Largest manifest, bytes: half a million members.
pub(super) const MANIFEST_MAX: u64 = 64 << 20;

/// Largest record, bytes.
const RECORD_MAX: u64 = 64 << 20;

/// Longest path, bytes: that of Linux, with its end.
const PATH_MAX: usize = 4096;

const FORMAT: u32 = 1;

/// All that is in a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contents {
    /// Raised with any change of the form.
    format: u32,
    /// Path of the pipeline file.
    pub pipeline: String,
    /// Files by the path at which they belong.
    pub files: BTreeMap<String, Content>,
    /// Records by their keys.
    pub records: BTreeMap<Digest, Content>,
    /// Objects by their digests.
    pub objects: BTreeMap<Digest, Object>,
}

/// A file or a record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub bytes: u64,
    /// Whether it is a program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    /// Its size.
    pub bytes: u64,
    /// Whether it is a program: digests do not cover that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A member of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name there.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub bytes: u64,
    /// What it is.
    pub what: What,
}

/// What a member of the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The content of one or more files.
    File,
    /// The record of a key.
    Record(Digest),
    /// An object; whether it is a program.
    Object(bool),
}

impl Member {
    /// Whether it is the content of files.
    pub fn is_file(&self) -> bool {
        self.what == What::File
    }

    /// Whether it is a record.
    pub fn is_record(&self) -> bool {
        matches!(self.what, What::Record(_))
    }
}

impl Contents {
    /// Of a pipeline at a path, empty.
    pub fn new(pipeline: &str) -> Self {
        Self {
            format: FORMAT,
            pipeline: pipeline.to_owned(),
            files: BTreeMap::new(),
            records: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    /// The manifest's text.
    pub fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest serialises to JSON");
        json.push(b'\n');
        json
    }

    /// Reads a manifest; says what is wrong with it.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let contents: Self = serde_json::from_slice(json)
            .map_err(|error| format!("its manifest is not readable ({error})"))?;
        contents.check()?;
        Ok(contents)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it has format {}, this qpipe reads {FORMAT}", self.format));
        }
        for path in self.files.keys() {
            if let Some(why) = refused(path) {
                let start: String = path.chars().take(200).collect();
                return Err(format!("the path {start:?} {why}"));
            }
        }
        // By parts, so that what lies in a folder follows upon the folder's own name.
        let mut paths: Vec<&Path> = self.files.keys().map(Path::new).collect();
        paths.sort_unstable();
        if let Some(pair) = paths.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
            return Err(format!("{:?} is a file and a folder", pair[0]));
        }
        if !self.files.contains_key(&self.pipeline) {
            return Err("its pipeline file is not in it".to_owned());
        }
        if self.records.values().any(|record| record.bytes > RECORD_MAX) {
            return Err("a record is too large".to_owned());
        }
        self.bytes().map(drop).ok_or_else(|| "its sizes are none".to_owned())
    }

    /// Bytes of all members; `None` where that is no number.
    pub fn bytes(&self) -> Option<u64> {
        self.members().iter().try_fold(0_u64, |sum, member| sum.checked_add(member.bytes))
    }

    /// The members that follow the manifest, in their order.
    pub fn members(&self) -> Vec<Member> {
        let contents: BTreeMap<Digest, u64> =
            self.files.values().map(|file| (file.digest, file.bytes)).collect();
        let files = contents.into_iter().map(|(digest, bytes)| Member {
            name: format!("files/{digest}"),
            digest,
            bytes,
            what: What::File,
        });
        let records = self.records.iter().map(|(key, content)| Member {
            name: format!("records/{key}"),
            digest: content.digest,
            bytes: content.bytes,
            what: What::Record(*key),
        });
        let objects = self.objects.iter().map(|(digest, object)| Member {
            name: format!("objects/{digest}"),
            digest: *digest,
            bytes: object.bytes,
            what: What::Object(object.executable),
        });
        files.chain(records).chain(objects).collect()
    }

    /// Reads the record of a key; says what is wrong with it.
    pub fn record(&self, key: &Digest, json: &[u8]) -> Result<ActionRecord, String> {
        let wrong = |what: &str| format!("the record {} {what}", key.short());
        let mut record: ActionRecord =
            serde_json::from_slice(json).map_err(|error| wrong(&format!("({error})")))?;
        if record.key.digest() != *key {
            return Err(wrong("belongs to another key"));
        }
        if !record.seconds.is_finite() || record.seconds < 0.0 {
            return Err(wrong("has no duration"));
        }
        for (port, output) in &record.outputs {
            if !output.is_inside() || !is_inside(port) {
                return Err(wrong("has an output outside of its folder"));
            }
            let object = self.objects.get(&output.digest);
            if !object.is_some_and(|object| output.directory || object.bytes == output.bytes) {
                return Err(wrong("has an output that is not in it"));
            }
        }
        // They are shown in terminals.
        for text in record.warnings.iter_mut().chain([
            &mut record.started,
            &mut record.stage,
            &mut record.host,
            &mut record.version,
        ]) {
            if text.contains(char::is_control) {
                *text = text.replace(char::is_control, " ");
            }
        }
        Ok(record)
    }
}

/// Why no file is written at a path; `None` if there is nothing against it.
fn refused(path: &str) -> Option<&'static str> {
    // Git runs what lies there, and qpipe keeps its cache there.
    const OURS: [&str; 2] = [".git", ".qpipe"];
    if path.len() >= PATH_MAX {
        return Some("is too long");
    }
    if !is_inside(path) {
        return Some("is not inside of the folder");
    }
    if path.contains(char::is_control) {
        return Some("has control characters");
    }
    let names: BTreeSet<String> = path.split('/').map(str::to_lowercase).collect();
    OURS.into_iter().any(|name| names.contains(name)).then_some("is one of git's or qpipe's own")
}

/// Whether a file of the user's may be packed under a path.
pub(super) fn is_packable(path: &str) -> bool {
    refused(path).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let content = Content { digest: Digest::of(b""), bytes: 0, executable: false };
        let read = |paths: &[&str]| {
            let mut contents = Contents::new("p.toml");
            for path in paths.iter().chain(&["p.toml"]) {
                contents.files.insert((*path).to_owned(), content);
            }
            Contents::read(&contents.json()).map(|_| ())
        };
        assert_eq!(read(&["a/b", "a/c", "..a"]), Ok(()));
        let bad = ["../a", "/a", "a/../../b", "a//b", "./a", "", "a\0b", "a\u{1b}[0m", "a/"];
        for path in bad.into_iter().chain([".git/hooks/x", "a/.GIT/config", ".qpipe/cache/journal"])
        {
            assert!(read(&[path]).is_err(), "{path:?}");
        }
        for paths in [&["a", "a/b"][..], &["a", "a-b", "a.c", "a/b/c"]] {
            assert_eq!(read(paths).unwrap_err(), "\"a\" is a file and a folder");
        }
        assert_eq!(read(&["ab", "a/b"]), Ok(()));
        let long = "a/".repeat(4 << 20) + "a";
        let error = read(&[&long]).unwrap_err();
        assert!(error.ends_with("is too long") && error.len() < 300, "{error}");
        assert!(Contents::read(&Contents::new("p.toml").json()).is_err(), "no pipeline file");
    }

    #[test]
    fn sizes_whose_sum_is_no_number_are_refused() {
        let mut contents = Contents::new("p");
        let content = Content { digest: Digest::of(b""), bytes: u64::MAX, executable: false };
        contents.files.insert("p".to_owned(), content);
        contents.objects.insert(Digest::of(b"x"), Object { bytes: 1, executable: false });
        assert_eq!(Contents::read(&contents.json()).unwrap_err(), "its sizes are none");
    }
}
