//! What jobs hand over to each other: the key of what a stage came to.
//!
//! A key may hold facts of the node where the stage ran (its processor, the host of a benchmark). Another
//! node, or the submitter, would make another key and look for another result: so it is told.

use std::path::PathBuf;

use super::error::Result;
use super::folder::at;
use crate::cache::{Digest, files, network, plain_name};

/// Keys of stages, a file each.
#[derive(Clone, Debug)]
pub struct HandOver {
    folder: PathBuf,
}

impl HandOver {
    /// In a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, stage: &str) -> PathBuf {
        self.folder.join(plain_name(stage))
    }

    /// The key of what the stage came to, if it has come to something.
    pub fn get(&self, stage: &str) -> Option<Digest> {
        let path = self.path(stage);
        let text = std::fs::read_to_string(&path).or_else(|_| {
            // Another machine may have written it since it was not there.
            network::ask(&self.folder);
            std::fs::read_to_string(&path)
        });
        let text = text.ok()?;
        Digest::try_from(text.trim().to_owned()).ok()
    }

    /// Tells a stage's key.
    pub fn put(&self, stage: &str, key: &Digest) -> Result<()> {
        if self.get(stage).as_ref() == Some(key) {
            return Ok(());
        }
        let path = self.path(stage);
        files::publish(&path, key.hex().as_bytes()).map_err(|error| super::error::SlurmError::Io {
            action: "write",
            path,
            source: std::io::Error::other(error),
        })
    }

    /// Forgets a stage's key: it is made anew.
    pub fn forget(&self, stage: &str) -> Result<()> {
        let path = self.path(stage);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => at("remove", &path, removed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let keys = HandOver::new(folder.path().join("keys"));
        let key = Digest::of(b"a");
        assert_eq!(keys.get("m[a/b]"), None);
        keys.put("m[a/b]", &key).unwrap();
        assert_eq!(keys.get("m[a/b]"), Some(key));
        keys.forget("m[a/b]").unwrap();
        keys.forget("m[a/b]").unwrap();
        assert_eq!(keys.get("m[a/b]"), None);
    }
}
