//! Using the cache while others use it too, and while it is being collected.
//!
//! Whoever looks records up or adds some holds the file `lock` in shared mode for that moment; a
//! collection holds it alone for the moment in which it removes things. What a run has found or
//! made it needs to its end: a run that begins to execute writes the keys of those records into its
//! file below `active/` (it holds that file's lock as long as it lives), and a collection keeps what
//! is named there. A run that finds everything up to date never lets go of the shared lock, so it
//! need not write anything.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{At, CacheError, Result};
use super::{Cache, Digest, files, flock, processes};

/// How long a run or a collection waits for the other.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cache does not change under whoever holds this.
#[derive(Debug)]
pub struct UseLock {
    _file: File,
}

/// A run's use of the cache.
#[derive(Debug)]
pub struct Session {
    cache: Cache,
    shared: Option<UseLock>,
    active: Option<(PathBuf, File)>,
    id: String,
}

impl Cache {
    /// Begins the run named `id`: nothing is collected until [`Session::settle`].
    ///
    /// # Errors
    ///
    /// [`CacheError::Busy`] if a collection does not come to an end.
    pub fn enter(&self, id: &str) -> Result<Session> {
        let shared = Some(self.share()?);
        Ok(Session { cache: self.clone(), shared, active: None, id: id.to_owned() })
    }

    /// Holds the cache as it is for a moment.
    ///
    /// # Errors
    ///
    /// [`CacheError::Busy`] if a collection does not come to an end.
    pub fn share(&self) -> Result<UseLock> {
        self.use_lock(libc::LOCK_SH, PATIENCE)
    }

    /// Holds the cache alone for a moment: runs may be under way, but none looks anything up.
    ///
    /// # Errors
    ///
    /// [`CacheError::Busy`] if somebody does not let go of it.
    pub(super) fn own_briefly(&self) -> Result<UseLock> {
        self.use_lock(libc::LOCK_EX, PATIENCE)
    }

    /// Holds the cache alone: there are no runs.
    ///
    /// # Errors
    ///
    /// [`CacheError::Busy`] while a run uses it.
    pub fn own(&self) -> Result<UseLock> {
        let lock = self.use_lock(libc::LOCK_EX, Duration::from_millis(500))?;
        let pids: Vec<i32> = self.active()?.into_iter().flat_map(|run| run.pids).collect();
        if pids.is_empty() {
            Ok(lock)
        } else {
            Err(CacheError::Busy { path: self.root().to_path_buf(), pids })
        }
    }

    fn use_lock(&self, operation: i32, patience: Duration) -> Result<UseLock> {
        let path = self.root().join("lock");
        let file = File::options().create(true).append(true).open(&path).at("open", &path)?;
        match flock::wait_for(&file, operation, patience) {
            Ok(()) => Ok(UseLock { _file: file }),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut pids = processes::holders(&file).unwrap_or_default();
                pids.retain(|pid| *pid != std::process::id().cast_signed());
                Err(CacheError::Busy { path: self.root().to_path_buf(), pids })
            }
            Err(error) => Err(error).at("lock", &path),
        }
    }

    /// The runs that execute stages now; files of runs that are gone are removed.
    pub(super) fn active(&self) -> Result<Vec<ActiveRun>> {
        let mut runs = Vec::new();
        for path in files::list(&self.place("active"))? {
            let Ok(file) = File::open(&path) else { continue };
            match flock::attempt(&file, libc::LOCK_EX) {
                Ok(()) => files::remove(&path)?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let text = String::from_utf8(files::read(&path)?.unwrap_or_default());
                    let lines = text.unwrap_or_default();
                    let id = lines.lines().next().and_then(|line| line.strip_prefix("run "));
                    let id = id.unwrap_or_default().to_owned();
                    let keys = lines.lines().filter_map(|line| Digest::parse(line.as_bytes()));
                    let pids = processes::holders(&file).unwrap_or_default();
                    // Of another user or another machine: alive, whoever it is.
                    let pids = if pids.is_empty() { vec![0] } else { pids };
                    runs.push(ActiveRun { id, keys: keys.collect(), pids });
                }
                Err(error) => return Err(error).at("lock", &path),
            }
        }
        Ok(runs)
    }
}

/// A run that executes stages now.
#[derive(Debug)]
pub(super) struct ActiveRun {
    /// Its name.
    pub id: String,
    /// Records that it needs.
    pub keys: Vec<Digest>,
    /// Its process.
    pub pids: Vec<i32>,
}

impl Session {
    /// The run begins to execute stages: from now on the cache may be collected, but for the
    /// records that are named here and by [`Session::pin`].
    pub fn settle<'k>(&mut self, used: impl Iterator<Item = &'k Digest>) -> Result<()> {
        if self.active.is_some() {
            return Ok(());
        }
        let folder = self.cache.place("active");
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        let path = folder.join(files::unique());
        let mut options = File::options();
        let file = options.create(true).truncate(true).write(true).open(&path);
        let mut file = file.at("create", &path)?;
        flock::attempt(&file, libc::LOCK_EX).at("lock", &path)?;
        let lines: String = used.map(|key| format!("{key}\n")).collect();
        let text = format!("run {}\n{lines}", self.id);
        file.write_all(text.as_bytes()).at("write", &path)?;
        self.active = Some((path, file));
        self.shared = None;
        Ok(())
    }

    /// Holds the cache as it is while something is looked up or added.
    pub fn hold(&self) -> Result<Option<UseLock>> {
        if self.shared.is_some() { Ok(None) } else { self.cache.share().map(Some) }
    }

    /// Names a record that was found or made under [`Session::hold`].
    pub fn pin(&mut self, key: &Digest) -> Result<()> {
        match &mut self.active {
            Some((path, file)) => file.write_all(format!("{key}\n").as_bytes()).at("write", path),
            None => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((path, _file)) = self.active.take() {
            // A file that is left behind is removed by the next collection.
            let _ = files::remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_plans_keeps_a_collection_out_and_one_that_executes_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let mut session = cache.enter("now").unwrap();
        let other = cache.enter("other").unwrap();
        let alone = || cache.use_lock(libc::LOCK_EX, Duration::ZERO);
        assert!(matches!(alone(), Err(CacheError::Busy { .. })));
        drop(other);
        let keys = [Digest::of(b"a"), Digest::of(b"b")];
        session.settle(keys[..1].iter()).unwrap();
        session.pin(&keys[1]).unwrap();
        drop(alone().unwrap());
        assert!(matches!(cache.own(), Err(CacheError::Busy { .. })), "there is a run");
        let active = cache.active().unwrap();
        assert_eq!(active.len(), 1);
        assert_eq!((active[0].id.as_str(), &active[0].keys[..]), ("now", &keys[..]));
        drop(session);
        cache.own().unwrap();
    }

    #[test]
    fn a_killed_runs_file_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        std::fs::create_dir(cache.place("active")).unwrap();
        std::fs::write(cache.place("active/1.0"), "").unwrap();
        assert!(cache.active().unwrap().is_empty());
        assert!(!cache.place("active/1.0").exists());
    }
}
