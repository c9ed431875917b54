//! Garbage collection: what no lock file, no recent run and no running stage needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::Result;
use super::{ActionRecord, Cache, Digest, InputIndex, LockFile, files};

/// What a collection removed, or would remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Records of actions that stay.
    pub kept: usize,
    /// Records of actions that went.
    pub actions: usize,
    /// Objects that went.
    pub objects: usize,
    /// Bytes freed.
    pub bytes: u64,
}

impl Cache {
    /// Remembers where a pipeline's lock file is, so that a collection keeps what it needs.
    pub fn register(&self, lock_file: &Path) -> Result<()> {
        let name = format!("{}.path", Digest::of(lock_file.as_os_str().as_encoded_bytes()).short());
        let path = self.place("pipelines").join(name);
        if path.exists() {
            return Ok(());
        }
        files::publish(&path, lock_file.as_os_str().as_encoded_bytes())
    }

    /// The lock files of all pipelines that ran with this cache.
    pub fn lock_files(&self) -> Result<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStringExt;
        let mut found = Vec::new();
        for path in files::list(&self.place("pipelines"))? {
            if let Some(bytes) = files::read(&path)? {
                found.push(PathBuf::from(std::ffi::OsString::from_vec(bytes)));
            }
        }
        Ok(found)
    }

    /// Removes records that neither a lock file names nor a run used within `keep`, then all
    /// objects that no record needs, and what killed runs left behind.
    ///
    /// # Errors
    ///
    /// [`super::CacheError::Busy`] while a run uses the cache; a lock file that cannot be read.
    pub fn collect(&self, extra: &[PathBuf], keep: Duration, dry: bool) -> Result<Collected> {
        let _own = self.own()?;
        let mut named = BTreeSet::new();
        for path in self.lock_files()?.iter().chain(extra) {
            let lock = LockFile::read(path)?.unwrap_or_default();
            named.extend(lock.stages.values().map(|stage| stage.key.hex()));
        }
        let mut sweep = Sweep { dry, trees: self.place("trees"), collected: Collected::default() };
        let mut live = BTreeSet::new();
        for path in files::list(&self.place("actions"))? {
            if files::is_temporary(&path) {
                sweep.remove(&path)?;
                continue;
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let record = files::read(&path)?
                .and_then(|bytes| serde_json::from_slice::<ActionRecord>(&bytes).ok());
            match record.filter(|_| named.contains(&name) || recent(&path, keep)) {
                Some(record) => {
                    sweep.collected.kept += 1;
                    self.mark(&record, &mut live);
                }
                None => {
                    sweep.collected.actions += 1;
                    sweep.remove(&path)?;
                }
            }
        }
        for kind in ["trees", "objects"] {
            for folder in files::list(&self.place(kind))? {
                for path in files::list(&folder)? {
                    if !live.contains(&path) {
                        sweep.collected.objects += usize::from(kind == "objects");
                        sweep.remove(&path)?;
                    }
                }
            }
        }
        if !dry {
            self.end_all()?;
        }
        for folder in ["scratch", "locks"] {
            for path in files::list(&self.place(folder))? {
                sweep.remove(&path)?;
            }
        }
        for folder in ["checkpoints", "logs"] {
            for path in files::list(&self.place(folder))? {
                if !recent(&path, keep) {
                    sweep.remove(&path)?;
                }
            }
        }
        if !dry {
            let mut index = InputIndex::load(self.place("index"));
            index.prune();
            index.save()?;
        }
        Ok(sweep.collected)
    }

    /// Ends what killed runs left running: without their locks nobody would find them.
    fn end_all(&self) -> Result<()> {
        for path in files::list(&self.place("locks"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Ok(key) = Digest::try_from(name) {
                self.claim(&key)?;
            }
        }
        Ok(())
    }

    /// The files that a record needs.
    fn mark(&self, record: &ActionRecord, live: &mut BTreeSet<PathBuf>) {
        for output in record.outputs.values() {
            live.insert(self.object(&output.digest));
            if output.directory {
                live.insert(self.tree(&output.digest));
                let entries = self.manifest(&output.digest).unwrap_or_default().entries;
                live.extend(entries.iter().map(|entry| self.object(&entry.digest)));
            }
        }
    }

    /// Removes everything but the marker.
    ///
    /// # Errors
    ///
    /// [`super::CacheError::Busy`] while a run uses the cache.
    pub fn clear(&self) -> Result<u64> {
        let _own = self.own()?;
        self.end_all()?;
        let mut bytes = 0;
        for name in CONTENT {
            let path = self.place(name);
            bytes += if *name == "trees" { 0 } else { files::size(&path) };
            files::remove(&path)?;
        }
        Ok(bytes)
    }
}

/// All that qpipe puts into a cache folder besides its marker and lock.
const CONTENT: &[&str] = &[
    "view",
    "last",
    "actions",
    "trees",
    "objects",
    "checkpoints",
    "scratch",
    "locks",
    "logs",
    "pipelines",
    "index",
    "facts.json",
];

struct Sweep {
    dry: bool,
    trees: PathBuf,
    collected: Collected,
}

impl Sweep {
    /// Removes a file or folder; a tree's files are links to objects, which are counted there.
    fn remove(&mut self, path: &Path) -> Result<()> {
        if !path.starts_with(&self.trees) {
            self.collected.bytes += files::size(path);
        }
        if self.dry { Ok(()) } else { files::remove(path) }
    }
}

/// Whether a file or folder was used within `keep`.
fn recent(path: &Path, keep: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < keep))
}
