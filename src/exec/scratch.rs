//! The folders of one attempt to run a stage.
//!
//! Folders of attempts that succeeded are used again, and nothing is removed while a run goes on: a file system
//! such as ext4 leaves an inode alone for some minutes after it was freed, and searches past all of those for
//! each new one, so that a run that makes and removes eight a stage becomes slower with every stage.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::error::{At, Result};
use super::keys::Done;
use crate::cache::{Cache, Digest, StoredOutput, files, plain_name};
use crate::config::{Origin, StageCell};
use crate::stages::contract::Runs;

/// The folders of one attempt; `root` is removed when it is dropped, unless it is handed back.
#[derive(Debug)]
pub struct Scratch {
    /// All but the checkpoints lies below.
    pub root: PathBuf,
    /// Outlives an attempt that fails.
    pub checkpoints: PathBuf,
    /// Port → file or folder, for all inputs but data sets.
    pub inputs: BTreeMap<String, PathBuf>,
}

/// Folders of attempts that succeeded, for the next ones.
///
/// They lie in [`Cache::spent`], where any run may remove them.
#[derive(Debug, Default)]
pub struct Spares(Vec<PathBuf>);

/// Below the root: outputs, inputs, anything else.
const FOLDERS: [&str; 3] = ["out", "in", "tmp"];

impl Scratch {
    /// Makes the folders. Objects appear under the file names that their stages gave them.
    pub fn new(
        cache: &Cache,
        spares: &mut Spares,
        key: &Digest,
        cell: &StageCell,
        done: &Done,
    ) -> Result<Self> {
        // A survivor may have kept the lock of an earlier attempt when the scratch folders were
        // swept; the claim is ours now, so nobody uses them.
        for old in files::list(&cache.place("scratch"))? {
            if old.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&key.hex())) {
                files::remove(&old)?;
            }
        }
        let root = cache.place("scratch").join(format!("{key}.{}", files::unique()));
        let checkpoints = cache.place("checkpoints").join(key.hex());
        let mut scratch = Self { root, checkpoints, inputs: BTreeMap::new() };
        spares.take(cache, &scratch.root);
        make(&scratch.root)?;
        make(&scratch.out())?;
        make(&scratch.temporary())?;
        if cell.kind.runs == Runs::Worker {
            make(&scratch.checkpoints)?;
        }
        for output in cell.stage.outputs().iter().filter(|output| output.file.contains('/')) {
            let path = scratch.out().join(&output.file);
            make(path.parent().unwrap_or(&scratch.root))?;
        }
        for input in &cell.inputs {
            let path = match &input.origin {
                Origin::Path(path) => path.clone(),
                Origin::Data(_) => continue,
                Origin::Stage { id, port, .. } => {
                    let output = done.get(id).and_then(|record| record.outputs.get(port));
                    let Some(output) = output else { continue };
                    scratch.input(cache, &input.port, output)?
                }
            };
            scratch.inputs.insert(input.port.clone(), path);
        }
        Ok(scratch)
    }

    /// Where outputs go.
    pub fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    /// For anything else.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Makes an object appear as `in/NAME`, or as `in.PORT/NAME` where another input has the name.
    fn input(&self, cache: &Cache, port: &str, output: &StoredOutput) -> Result<PathBuf> {
        let name = Path::new(&output.file).file_name().unwrap_or(OsStr::new(&output.file));
        let mut path = self.root.join("in").join(name);
        if self.inputs.values().any(|other| *other == path) {
            path = self.root.join(format!("in.{}", plain_name(port))).join(name);
        }
        make(path.parent().unwrap_or(&self.root))?;
        let object = cache.output(output);
        // A second name costs no inode; folders, and places that know no such names, get a link.
        let linked = !output.directory && fs::hard_link(&object, &path).is_ok();
        if !linked {
            symlink(&object, &path).at("link", &path)?;
        }
        Ok(path)
    }

    /// Removes all that the stage left, and keeps the empty folders for another attempt.
    pub fn hand_back(self, cache: &Cache, spares: &mut Spares) {
        let place = cache.spent().join(files::unique());
        // Where that fails, all of it is removed.
        if self.empty().is_ok() && renamed(&self.root, &place) {
            spares.0.push(place);
        }
    }

    fn empty(&self) -> Result<()> {
        for path in files::list(&self.root)? {
            let known = FOLDERS.iter().any(|folder| path.ends_with(folder));
            if known && is_usual(&path) {
                for left in files::list(&path)? {
                    files::remove(&left)?;
                }
            } else {
                files::remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next attempt or collection.
        let _ = files::remove(&self.root);
    }
}

impl Spares {
    /// Moves the folders of an earlier attempt to `root`, if there are some; but for the outputs': whatever
    /// still knows that one must not write into another stage's.
    fn take(&mut self, cache: &Cache, root: &Path) {
        let Some(spare) = self.0.pop() else { return };
        if fs::rename(spare, root).is_ok() {
            let out = root.join("out");
            if !renamed(&out, &cache.spent().join(files::unique())) {
                // One that cannot be put aside makes itself known when the new one is made.
                let _ = files::remove(&out);
            }
        }
    }
}

/// Whether a folder is as it was made, not a link that a stage put there or closed to the next one.
fn is_usual(path: &Path) -> bool {
    let usual = |it: fs::Metadata| it.is_dir() && it.permissions().mode() & 0o700 == 0o700;
    fs::symlink_metadata(path).is_ok_and(usual)
}

/// Moves something to where its folder may not be yet.
fn renamed(from: &Path, to: &Path) -> bool {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = to.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok());
            made && fs::rename(from, to).is_ok()
        }
        moved => moved.is_ok(),
    }
}

/// Makes a folder, and those above it where they are missing.
fn make(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
    .at("create", folder)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn folders_that_are_taken_back_while_others_sweep_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = &Cache::open(folder.path()).unwrap();
        let over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        cache.sweep_spent().unwrap();
                    }
                });
            }
            let mut spares = Spares::default();
            let mut lost = 0;
            for _ in 0..500 {
                let root = cache.place("scratch").join(files::unique());
                let checkpoints = root.join("checkpoints");
                let scratch = Scratch { root, checkpoints, inputs: BTreeMap::new() };
                spares.take(cache, &scratch.root);
                for folder in [scratch.root.clone(), scratch.out(), scratch.temporary()] {
                    make(&folder).unwrap();
                }
                std::thread::sleep(std::time::Duration::from_micros(100));
                lost += usize::from(!scratch.out().exists() || !scratch.temporary().exists());
                scratch.hand_back(cache, &mut spares);
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
