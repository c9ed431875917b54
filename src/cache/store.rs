//! The cache's folder: where it is and what is where in it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{At, CacheError, Result};
use super::journal::Journal;
use super::{Digest, files};

/// A cache folder.
///
/// ```text
/// journal            records of stages that succeeded, a line each
/// objects/ab/cdef…   files by the SHA-256 of their content, and manifests of folders
/// trees/ab/cdef…     folders by their manifest's digest, hard links to the objects
/// index/             what is known of the user's files
/// locks/KEY          held while a stage runs, by all of its processes
/// active/RUN         held while a run goes on; names the records that it needs
/// scratch/           a folder for each attempt to run a stage
/// checkpoints/KEY/   what a killed training goes on from
/// runs/RUN.json      what each run did
/// logs/RUN/          what stages printed
/// remote/partial/    what is on its way from or to a remote cache
/// view/PIPELINE/     the artifacts under readable names
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    /// Whether it is not only to be read.
    pub(super) writable: bool,
    shared: Arc<Shared>,
}

/// What all clones of a [`Cache`] have in common.
#[derive(Debug)]
struct Shared {
    journal: Mutex<Journal>,
    /// Objects that were stored and not flushed yet.
    pending: Mutex<Vec<PathBuf>>,
    /// Records whose outputs were read and found whole.
    checked: Mutex<HashSet<Digest>>,
    /// Records of others that were used and are not known to be flushed.
    adopted: Mutex<HashSet<Digest>>,
}

/// Environment variable that names the cache folder.
pub const VARIABLE: &str = "QPIPE_CACHE";

/// Tells backup programs that the folder can be made anew (<https://bford.info/cachedir/>), and
/// qpipe that it is its own.
pub const MARKER: &str = "CACHEDIR.TAG";

const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55";
const LAYOUT: &str = "# qpipe cache, layout 2";

impl Cache {
    /// The cache at `root`, made if it is not there yet.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made, whose path is not UTF-8, or that has another layout.
    pub fn open(root: &Path) -> Result<Self> {
        let cache = Self { writable: true, ..Self::at(root)? };
        let marker = cache.root.join(MARKER);
        if !marker.exists() {
            files::publish(&marker, format!("{SIGNATURE}\n{LAYOUT}\n").as_bytes())?;
        }
        let ignore = cache.root.join(".gitignore");
        if !ignore.exists() {
            files::publish(&ignore, b"*\n")?;
        }
        Ok(cache)
    }

    /// The cache at `root`, only to be read; it may not be there.
    ///
    /// # Errors
    ///
    /// A folder with another layout.
    pub fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).at("find", root)?;
        if root.to_str().is_none() {
            return Err(CacheError::NotUtf8 { path: root });
        }
        if let Some(marker) = files::read(&root.join(MARKER))? {
            let text = String::from_utf8_lossy(&marker);
            if !text.contains(LAYOUT) {
                let found = text.lines().nth(1).unwrap_or_default().to_owned();
                return Err(CacheError::Layout { path: root, found });
            }
        }
        let shared = Shared {
            journal: Mutex::new(Journal::new(root.join("journal"))),
            pending: Mutex::default(),
            checked: Mutex::default(),
            adopted: Mutex::default(),
        };
        Ok(Self { root, writable: false, shared: Arc::new(shared) })
    }

    /// The journal. No call that takes it again may be made meanwhile.
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Objects that were stored and not flushed yet.
    pub(super) fn pending(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records whose outputs were read and found whole.
    pub(super) fn checked(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.shared.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of others that were used and are not known to be flushed.
    pub(super) fn adopted(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.shared.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the cache of a pipeline file is: `explicit`, else `variable` (the value of
    /// [`VARIABLE`]), else the nearest folder `cache` with our marker in the pipeline's folder or
    /// above it, else `.qpipe/cache` beside the pipeline.
    pub fn locate(explicit: Option<&Path>, variable: Option<PathBuf>, folder: &Path) -> PathBuf {
        if let Some(path) = explicit {
            return path.to_path_buf();
        }
        if let Some(path) = variable.filter(|path| !path.as_os_str().is_empty()) {
            return path;
        }
        let ours = |cache: &PathBuf| {
            let marker = fs::read_to_string(cache.join(MARKER));
            marker.is_ok_and(|text| text.contains("qpipe cache"))
        };
        let near = folder.ancestors().map(|above| above.join("cache")).find(ours);
        near.unwrap_or_else(|| folder.join(".qpipe/cache"))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder or file of the cache by its name.
    pub fn place(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The file with the content of that digest.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        self.spread("objects", digest)
    }

    /// The folder with the manifest of that digest.
    pub fn tree(&self, digest: &Digest) -> PathBuf {
        self.spread("trees", digest)
    }

    fn spread(&self, kind: &str, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let mut path = self.root.join(kind);
        path.push(&hex[..2]);
        path.push(&hex[2..]);
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_then_the_variable_then_the_nearest_marked_folder() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("project/pipelines");
        fs::create_dir_all(&below).unwrap();
        let locate = |flag: Option<&str>, variable: Option<&str>| {
            Cache::locate(flag.map(Path::new), variable.map(PathBuf::from), &below)
        };
        assert_eq!(locate(Some("/a"), Some("/b")), Path::new("/a"));
        assert_eq!(locate(None, Some("/b")), Path::new("/b"));
        assert_eq!(locate(None, Some("")), below.join(".qpipe/cache"));
        fs::create_dir(folder.path().join("cache")).unwrap();
        assert_eq!(locate(None, None), below.join(".qpipe/cache"), "not ours");
        Cache::open(&folder.path().join("cache")).unwrap();
        assert_eq!(locate(None, None), folder.path().join("cache"));
    }

    #[test]
    fn the_projects_own_cache_folder_is_of_this_layout() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cache");
        assert!(folder.join(MARKER).is_file());
        Cache::at(&folder).unwrap();
    }

    #[test]
    fn another_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARKER), "Signature\n# qpipe cache, layout 7\n").unwrap();
        let error = Cache::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("is a cache of another layout: # qpipe cache, layout 7"),
            "{error}"
        );
    }
}
