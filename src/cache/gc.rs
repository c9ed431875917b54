//! Garbage collection: what no lock file, no recent run and no running stage needs.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::Result;
use super::{ActionRecord, Cache, Claimed, Digest, InputIndex, LockFile, files};

/// What a collection removed, or would remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Records of actions that stay.
    pub kept: usize,
    /// Their size, bytes.
    pub kept_bytes: u64,
    /// Records of actions that went.
    pub actions: usize,
    /// Objects that went.
    pub objects: usize,
    /// Bytes freed.
    pub bytes: u64,
}

/// What a collection keeps besides what lock files and runs under way need.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Lock files whose results are needed, besides those of all pipelines that ran with the cache.
    pub lock_files: Vec<PathBuf>,
    /// What was used within this time is kept…
    pub within: Duration,
    /// …latest first, as long as all that is kept takes no more bytes than this.
    pub bytes: Option<u64>,
}

impl Cache {
    /// Remembers where a pipeline's lock file is, so that a collection keeps what it needs, and what
    /// the file as it is was made of.
    pub fn register(&self, lock_file: &Path, made_of: Option<&Digest>) -> Result<()> {
        let place = self.registered(lock_file);
        let path = lock_file.as_os_str().as_encoded_bytes();
        let stamp = made_of.map(|made_of| format!("\n{made_of} {}", stamp(lock_file)));
        let bytes = [path, stamp.unwrap_or_default().as_bytes()].concat();
        if files::read(&place)?.is_some_and(|before| before == bytes) {
            return Ok(());
        }
        files::publish_unflushed(&place, &bytes)
    }

    /// Whether a lock file is as it was when it was made of just that.
    pub fn is_registered(&self, lock_file: &Path, made_of: &Digest) -> bool {
        let before = files::read(&self.registered(lock_file)).ok().flatten().unwrap_or_default();
        before.ends_with(format!("\n{made_of} {}", stamp(lock_file)).as_bytes())
    }

    fn registered(&self, lock_file: &Path) -> PathBuf {
        let name = format!("{}.path", Digest::of(lock_file.as_os_str().as_encoded_bytes()).short());
        self.place("pipelines").join(name)
    }

    /// The lock files of all pipelines that ran with this cache.
    pub fn lock_files(&self) -> Result<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStringExt;
        let mut found = Vec::new();
        for path in files::list(&self.place("pipelines"))? {
            if let Some(bytes) = files::read(&path)? {
                let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
                let bytes = bytes[..end].to_vec();
                found.push(PathBuf::from(std::ffi::OsString::from_vec(bytes)));
            }
        }
        Ok(found)
    }

    /// Removes records that nothing needs, then all objects that no record needs, and what killed
    /// runs left behind. Runs may be under way: what they need stays.
    ///
    /// # Errors
    ///
    /// [`super::CacheError::Busy`] if somebody does not let go of the cache; a lock file that cannot
    /// be read.
    pub fn collect(&self, keep: &Keep, dry: bool) -> Result<Collected> {
        let _own = self.own_briefly()?;
        // First the runs, then the lock files: a run that ends meanwhile has written its own before.
        let active = self.active()?;
        let mut needed: BTreeSet<Digest> = active.iter().flat_map(|run| run.keys.clone()).collect();
        needed.extend(self.awaited()?);
        for path in self.lock_files()?.iter().chain(&keep.lock_files) {
            let lock = LockFile::read(path)?.unwrap_or_default();
            needed.extend(lock.stages.values().map(|stage| stage.key));
        }
        let mut sweep = Sweep { dry, trees: self.place("trees"), collected: Collected::default() };
        let Chosen { kept, live, bytes } = self.choose(keep, &needed)?;
        (sweep.collected.kept, sweep.collected.kept_bytes) = (kept.len(), bytes);
        sweep.collected.actions = self.journal().len() - kept.len();
        if !dry {
            self.journal().compact(|key| kept.contains(key))?;
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
        let held = self.end_all(dry)?;
        // Empty folders, of which runs that go on may put more there.
        let spent = self.spent();
        if !dry {
            self.sweep_spent()?;
        }
        for path in files::list(&self.place("scratch"))?.into_iter().filter(|path| *path != spent) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !held.contains(name.split('.').next().unwrap_or_default()) {
                sweep.remove(&path)?;
            }
        }
        for path in files::list(&self.place("checkpoints"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !held.contains(&name) && !recent(&path, keep.within) {
                sweep.remove(&path)?;
            }
        }
        for folder in ["logs", "runs", "data"] {
            for path in files::list(&self.place(folder))? {
                // A run writes its record at its end, beside a collection.
                let writes = files::is_temporary(&path) && !files::is_leftover(&path);
                let under_way = active.iter().any(|run| path.file_name() == Some(run.id.as_ref()));
                if !writes && !under_way && !recent(&path, keep.within) {
                    sweep.remove(&path)?;
                }
            }
        }
        for path in files::list(&self.place("remote/partial"))? {
            // A run may be loading it.
            if !recent(&path, keep.within.max(Duration::from_secs(3600))) {
                sweep.remove(&path)?;
            }
        }
        for path in files::list(self.root())?.iter().filter(|path| files::is_leftover(path)) {
            sweep.remove(path)?;
        }
        if !dry {
            InputIndex::prune(&self.place("index"))?;
        }
        Ok(sweep.collected)
    }

    /// Keys of results that jobs of a cluster may need: those that were handed over to them, as long as
    /// their state file says that they are not over (see `exec::executor::slurm`). Jobs that nobody
    /// followed to their end are forgotten after [`AWAITED`].
    fn awaited(&self) -> Result<Vec<Digest>> {
        #[derive(serde::Deserialize)]
        struct State {
            jobs: Vec<serde::de::IgnoredAny>,
        }
        let mut keys = Vec::new();
        for folder in files::list(&self.place("slurm"))? {
            let (state, told) = (folder.join("state.json"), folder.join("keys"));
            let Some(json) = files::read(&state)? else { continue };
            // One that cannot be read may be of a newer qpipe.
            let over =
                serde_json::from_slice(&json).is_ok_and(|state: State| state.jobs.is_empty());
            if over || !(recent(&state, AWAITED) || recent(&told, AWAITED)) {
                continue;
            }
            for path in files::list(&told)? {
                let text = files::read(&path)?.unwrap_or_default();
                keys.extend(Digest::parse(text.trim_ascii()));
            }
        }
        Ok(keys)
    }

    /// The records that stay, and the files that they need: those that are needed, then those that
    /// were used within the time, latest first, as long as there is room.
    fn choose(&self, keep: &Keep, needed: &BTreeSet<Digest>) -> Result<Chosen> {
        let now = super::journal_line::now();
        let mut records: Vec<(Digest, ActionRecord, u64)> = Vec::new();
        for (record, used) in self.records()? {
            records.push((record.key.digest(), record, used));
        }
        records.sort_by_key(|(key, _, used)| (!needed.contains(key), Reverse(*used)));
        let (mut kept, mut live, mut bytes) = (HashSet::new(), HashSet::new(), 0);
        for (key, record, used) in &records {
            let mut files = Vec::new();
            self.mark(record, &mut files);
            files.retain(|file| !live.contains(file));
            let more: u64 = files.iter().map(|path| files::size(path)).sum();
            let recent = now.saturating_sub(*used) < keep.within.as_secs();
            let fits = keep.bytes.is_none_or(|limit| bytes + more <= limit);
            if needed.contains(key) || (recent && fits) {
                bytes += more;
                kept.insert(*key);
                live.extend(files);
            }
        }
        Ok(Chosen { kept, live, bytes })
    }

    /// Ends what killed runs left running, and removes the locks that nobody holds. Returns the
    /// keys of those that are held.
    fn end_all(&self, dry: bool) -> Result<BTreeSet<String>> {
        let mut held = BTreeSet::new();
        for path in files::list(&self.place("locks"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(key) = Digest::try_from(name.clone()) else { continue };
            let empty = std::fs::metadata(&path).is_ok_and(|file| file.len() == 0);
            if dry && !empty {
                held.insert(name);
            } else if !dry {
                // An empty one was let go of in order; others are looked into.
                match self.claim(&key)? {
                    Claimed::Ours(_) | Claimed::Survivors(_) => files::remove(&path)?,
                    Claimed::Theirs(_) => {
                        held.insert(name);
                    }
                }
            }
        }
        Ok(held)
    }

    /// The files and folders that a record needs.
    pub(super) fn mark(&self, record: &ActionRecord, live: &mut Vec<PathBuf>) {
        for output in record.outputs.values() {
            live.push(self.object(&output.digest));
            if output.directory {
                live.push(self.tree(&output.digest));
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
        self.end_all(false)?;
        let mut bytes = 0;
        for name in CONTENT {
            let path = self.place(name);
            bytes += if *name == "trees" { 0 } else { files::size(&path) };
            files::remove(&path)?;
        }
        Ok(bytes)
    }
}

/// How long after the last sign of them the jobs of a cluster are believed to go on: 30 days.
const AWAITED: Duration = Duration::from_secs(30 * 86_400);

/// All that qpipe puts into a cache folder besides its marker and lock.
const CONTENT: &[&str] = &[
    "view",
    "journal",
    "trees",
    "objects",
    "checkpoints",
    "scratch",
    "locks",
    "active",
    "logs",
    "runs",
    "remote",
    "pipelines",
    "index",
    "data",
    "facts.json",
];

/// What a collection leaves.
struct Chosen {
    /// Keys of records.
    kept: HashSet<Digest>,
    /// The files and folders that they need.
    live: HashSet<PathBuf>,
    /// Size of these.
    bytes: u64,
}

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

/// Names a file's content.
fn stamp(path: &Path) -> String {
    match files::read(path) {
        Ok(Some(bytes)) => format!("{:08x} {}", crc32fast::hash(&bytes), bytes.len()),
        _ => "none".to_owned(),
    }
}

/// Whether a file or folder was used within `keep`; a time ahead, as after a clock was set back, is now.
fn recent(path: &Path, keep: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = |time| SystemTime::now().duration_since(time).unwrap_or_default();
    modified.is_ok_and(|time| age(time) < keep)
}
