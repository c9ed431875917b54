//! `NAME.lock` beside a pipeline file: what each stage came to, for version control.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{CacheError, Result};
use super::{ActionRecord, Digest, files};

/// What each stage of a pipeline came to: its key and its outputs' digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LockFile {
    /// Stage id → what it came to.
    #[serde(default)]
    pub stages: BTreeMap<String, LockedStage>,
}

/// What a stage came to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LockedStage {
    /// Digest of its key.
    pub key: Digest,
    /// Port → digest.
    pub outputs: BTreeMap<String, Digest>,
}

impl From<&ActionRecord> for LockedStage {
    fn from(record: &ActionRecord) -> Self {
        let outputs = record.outputs.iter().map(|(port, output)| (port.clone(), output.digest));
        Self { key: record.key.digest(), outputs: outputs.collect() }
    }
}

const HEADER: &str = "\
# Written by `qpipe run`: what each stage came to. Keep it under version control; do not edit it.
format = 1
";

impl LockFile {
    /// The lock file of a pipeline file.
    pub fn path(pipeline: &Path) -> PathBuf {
        pipeline.with_extension("lock")
    }

    /// Reads a lock file; `None` where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = files::read(path)? else { return Ok(None) };
        let damaged = |reason: String| CacheError::LockFile { path: path.to_path_buf(), reason };
        let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        let read = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            damaged(format!("line {line}: {}", error.message().replace('\n', ", ")))
        });
        read.map(Some)
    }

    /// Its text: stages and ports in alphabetical order, so that the order of the pipeline file
    /// does not matter.
    pub fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        for (id, stage) in &self.stages {
            text.push_str(&format!("\n[stages.{}]\nkey = \"{}\"\n", quoted(id), stage.key));
            for (port, digest) in &stage.outputs {
                text.push_str(&format!("outputs.{} = \"{digest}\"\n", quoted(port)));
            }
        }
        text
    }

    /// Writes it if that changes the file; says whether it did.
    pub fn write(&self, path: &Path) -> Result<bool> {
        let text = self.text();
        if files::read(path)?.is_some_and(|bytes| bytes == text.as_bytes()) {
            return Ok(false);
        }
        files::publish(path, text.as_bytes())?;
        Ok(true)
    }
}

/// A TOML key: quoted where a bare one cannot hold it.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        return key.to_owned();
    }
    toml::Value::String(key.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_is_written_only_if_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.lock");
        assert_eq!(LockFile::read(&path).unwrap(), None);
        let stage = LockedStage {
            key: Digest::of(b"k"),
            outputs: [("model".to_owned(), Digest::of(b"m"))].into(),
        };
        let ids = ["fp32", "onnx[ptq[max],1]", "odd[\"a\\b\"]"];
        let lock =
            LockFile { stages: ids.iter().map(|id| ((*id).to_owned(), stage.clone())).collect() };
        assert!(lock.write(&path).unwrap());
        assert!(!lock.write(&path).unwrap());
        assert_eq!(LockFile::read(&path).unwrap(), Some(lock));
    }

    #[test]
    fn the_text_is_pinned() {
        let outputs = [("out".to_owned(), Digest::of(b""))].into();
        let stage = LockedStage { key: Digest::of(b""), outputs };
        let lock = LockFile { stages: [("a[1]".to_owned(), stage)].into() };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let expected =
            format!("{HEADER}\n[stages.\"a[1]\"]\nkey = \"{empty}\"\noutputs.out = \"{empty}\"\n");
        assert_eq!(lock.text(), expected);
    }

    #[test]
    fn a_merge_conflict_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.lock");
        std::fs::write(&path, format!("{HEADER}\n<<<<<<< ours\n")).unwrap();
        let error = LockFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("p.lock is no lock file of qpipe: line 4: "), "{error}");
    }
}
