//! Digests of the user's files, each taken once a run.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::error::Result;
use crate::cache::{Cache, Digest, InputIndex};
use crate::config::{Data, Origin, Pipeline, StageCell};

/// Digests of the user's files, each taken once a run.
#[derive(Debug)]
pub struct Inputs {
    index: InputIndex,
    taken: HashMap<PathBuf, Digest>,
}

impl Inputs {
    /// With what the cache knows of files.
    pub fn new(cache: &Cache) -> Self {
        Self { index: InputIndex::load(cache.place("index")), taken: HashMap::new() }
    }

    /// Digest of a file or folder, as this run first saw it.
    pub fn digest(&mut self, path: &Path) -> Result<Digest> {
        if let Some(digest) = self.taken.get(path) {
            return Ok(*digest);
        }
        let digest = self.index.digest(path)?;
        self.taken.insert(path.to_path_buf(), digest);
        Ok(digest)
    }

    /// Digest of a data set: of its description and of what its paths hold.
    pub fn data(&mut self, data: &Data) -> Result<Digest> {
        let mut paths = BTreeMap::new();
        for (port, path) in &data.paths {
            paths.insert(port, self.digest(path)?);
        }
        let mut canonical = serde_json::json!({ "spec": data.spec, "paths": paths });
        canonical.sort_all_objects();
        Ok(Digest::of(canonical.to_string().as_bytes()))
    }

    /// The files and folders of a stage that are no longer what this run first saw.
    pub fn changed(&mut self, pipeline: &Pipeline, cell: &StageCell) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for path in user_paths(pipeline, cell) {
            let before = self.taken.get(path).copied();
            // A file that is gone or being replaced has changed as well.
            if self.index.digest(path).ok() != before && !changed.iter().any(|old| old == path) {
                changed.push(path.to_path_buf());
            }
        }
        Ok(changed)
    }

    /// Writes what was learnt.
    pub fn save(&mut self) -> Result<()> {
        Ok(self.index.save()?)
    }
}

/// The user's files and folders that a stage reads.
fn user_paths<'p>(pipeline: &'p Pipeline, cell: &'p StageCell) -> Vec<&'p Path> {
    let mut paths = Vec::new();
    for input in &cell.inputs {
        match &input.origin {
            Origin::Stage { .. } => {}
            Origin::Data(name) => {
                let data = pipeline.data.get(name);
                paths
                    .extend(data.iter().flat_map(|data| data.paths.values().map(PathBuf::as_path)));
            }
            Origin::Path(path) => paths.push(path),
        }
    }
    paths
}
