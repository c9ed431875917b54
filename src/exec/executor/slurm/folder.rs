//! The files about a pipeline's jobs: what was submitted, their events, what they hand over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Result, SlurmError};
use super::state::Submitted;
use crate::cache::{Cache, Digest, plain_name};

/// The folder of a pipeline's jobs.
///
/// ```text
/// CACHE/slurm/PIPELINE-…/
///   state.json      what was submitted
///   lock            held while jobs are submitted
///   marker          nodes that do not see it do not share the cache
///   keys/STAGE      the key of what a stage came to
///   jobs/           events and other output of each job
/// ```
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Of a pipeline: its name, its file, the user and the cluster belong to it.
    pub fn of(cache: &Cache, name: &str, file: &Path, cluster: &str) -> Self {
        // SAFETY: no memory is passed; it cannot fail.
        let user = unsafe { libc::getuid() };
        let digest = Digest::of(format!("{user} {cluster} {}", file.display()).as_bytes());
        let name = format!("{}-{}", plain_name(name), digest.short());
        Self { root: cache.place("slurm").join(name) }
    }

    /// Where events and other output of jobs go.
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// Where jobs hand over what they made.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// A file that a node must see.
    pub fn marker(&self) -> PathBuf {
        self.root.join("marker")
    }

    /// Makes the folders and takes the lock; waits for another submitter, and for the `sbatch` of one
    /// that was killed.
    pub fn lock(&self) -> Result<File> {
        for folder in [self.jobs(), self.keys()] {
            at("create", &folder, fs::create_dir_all(&folder))?;
        }
        at("write", &self.marker(), fs::write(self.marker(), "qpipe\n"))?;
        let path = self.root.join("lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = at("open", &path, file)?;
        at("lock", &path, crate::cache::flock::wait(&file, libc::LOCK_EX))?;
        Ok(file)
    }

    /// What was submitted.
    pub fn read(&self) -> Result<Submitted> {
        let path = self.root.join("state.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Submitted::default());
            }
            Err(error) => return at("read", &path, Err(error)),
        };
        let wrong = |reason: String| SlurmError::State { path: path.clone(), reason };
        let submitted: Submitted =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if submitted.format != Submitted::FORMAT {
            return Err(wrong(format!(
                "it has form {}, expected {}",
                submitted.format,
                Submitted::FORMAT
            )));
        }
        Ok(submitted)
    }

    /// Writes what was submitted: whole or not at all.
    pub fn write(&self, submitted: &Submitted) -> Result<()> {
        let path = self.root.join("state.json");
        let text = serde_json::to_string_pretty(submitted);
        let text = at("write", &path, text.map_err(io::Error::from))?;
        crate::cache::files::publish(&path, text.as_bytes()).map_err(|error| SlurmError::Io {
            action: "write",
            path,
            source: io::Error::other(error),
        })
    }

    /// Removes what jobs printed; for when none is left.
    pub fn clear(&self) -> Result<()> {
        let folder = self.jobs();
        for entry in at("list", &folder, fs::read_dir(&folder))?.flatten() {
            at("remove", &entry.path(), fs::remove_file(entry.path()))?;
        }
        Ok(())
    }
}

/// Says of a failed system call what it was meant to do.
pub fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| SlurmError::Io { action, path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_submitted_is_read_back_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let place = Folder::of(&cache, "p", Path::new("/p.toml"), "c");
        let _lock = place.lock().unwrap();
        assert_eq!(place.read().unwrap(), Submitted::default());
        let submitted = Submitted { format: 1, cluster: "c".to_owned(), ..Submitted::default() };
        place.write(&submitted).unwrap();
        assert_eq!(place.read().unwrap(), submitted);
        fs::write(place.root.join("state.json"), "{").unwrap();
        assert!(matches!(place.read(), Err(SlurmError::State { .. })));
        assert_ne!(place.root, Folder::of(&cache, "p", Path::new("/q.toml"), "c").root);
    }
}
