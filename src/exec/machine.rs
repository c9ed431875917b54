//! The machine among several runs: who measures has it alone.
//!
//! Each stage that runs holds the lock file `machine` in shared mode, one that needs the machine
//! alone holds it alone. To begin, both pass through the file `gate`: one that waits to be alone
//! holds the gate meanwhile, so that no new stage begins and its turn comes. The files lie in one
//! folder of this user's, whatever session its runs are of; runs of other users are not seen.
//!
//! A run inside a stage, as of a program that calls `qpipe run`, would wait for that stage, which
//! waits for it. So it takes part in the stage's turn ([`Inside`]): nothing of it waits for other
//! runs, and where the stage has the machine alone, the runs inside it have lock files of their own.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{At, Result, RunError};
use super::host;
use crate::cache::flock;

/// This machine, as its runs share it.
#[derive(Debug)]
pub struct Machine {
    /// Which one it is.
    name: String,
    /// Where its lock files are; `None`: they cannot be made, so there is nobody to wait for.
    folder: Option<PathBuf>,
    /// The stage that this run is inside of.
    inside: Option<Inside>,
    /// What removes old temporary files leaves a folder alone that is locked (systemd-tmpfiles(8)).
    _folder: Option<File>,
}

/// A part of the machine is ours, or all of it, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    _machine: Option<File>,
}

/// What a stage tells runs inside it of its turn, in [`Inside::VARIABLE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// The machine: on another one it means nothing.
    machine: String,
    /// The run.
    pub run: String,
    /// The stage.
    pub stage: String,
    /// Whether the stage has the machine alone.
    pub alone: bool,
    /// Where lock files are.
    folder: Option<PathBuf>,
}

/// The variable that names another folder for the lock files: the same one for all runs that are to see each other.
const FOLDER: &str = "QPIPE_MACHINE";

impl Inside {
    /// The variable that holds it, as JSON.
    pub const VARIABLE: &str = "QPIPE_INSIDE";

    /// From the variable of a process on `machine`.
    fn read(told: &str, machine: &str) -> Option<Self> {
        let inside: Self = serde_json::from_str(told).ok()?;
        (inside.machine == machine).then_some(inside)
    }

    /// The value of the variable.
    pub fn variable(&self) -> String {
        // Strings, and a path that is no string where it is not UTF-8: then runs inside are as any others.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Machine {
    /// With its lock files.
    ///
    /// # Errors
    ///
    /// Their folder is not this user's alone.
    pub fn open() -> Result<Self> {
        let name = host::identity();
        let told = std::env::var(Inside::VARIABLE).unwrap_or_default();
        if let Some(inside) = Inside::read(&told, &name) {
            let folder = inside.folder.clone();
            let made = |folder: &PathBuf| fs::create_dir_all(folder).is_ok();
            let folder = folder.filter(|folder| !inside.alone || made(folder));
            return Ok(Self { name, folder, inside: Some(inside), _folder: None });
        }
        let folder = own_folder()?;
        let lock = folder.as_ref().and_then(|folder| File::open(folder).ok());
        if let Some(lock) = &lock {
            let _ = flock::attempt(lock, libc::LOCK_SH);
        }
        Ok(Self { name, folder, inside: None, _folder: lock })
    }

    /// The stage that this run is inside of, where it has no turn of the machine alone: nothing of the run can have.
    pub fn shared_by(&self) -> Option<&Inside> {
        self.inside.as_ref().filter(|inside| !inside.alone)
    }

    /// What a stage of this run tells runs inside it; below `root` it has files of its own.
    pub fn inside(&self, run: &str, stage: &str, alone: bool, root: &Path) -> Inside {
        Inside {
            machine: self.name.clone(),
            run: run.to_owned(),
            stage: stage.to_owned(),
            alone,
            folder: if alone { Some(root.join("locks")) } else { self.folder.clone() },
        }
    }

    /// Waits for the machine.
    pub async fn turn(&self, alone: bool) -> io::Result<Turn> {
        if self.shared_by().is_some() {
            return Ok(Turn { _machine: None });
        }
        let (Some(gate), Some(machine)) = (self.file("gate")?, self.file("machine")?) else {
            return Ok(Turn { _machine: None });
        };
        let kind = if alone { libc::LOCK_EX } else { libc::LOCK_SH };
        lock(&gate, kind).await?;
        lock(&machine, kind).await?;
        Ok(Turn { _machine: Some(machine) })
    }

    /// A lock file; `None` where it cannot be made.
    fn file(&self, name: &str) -> io::Result<Option<File>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let mut options = File::options();
        options.create(true).append(true).custom_flags(libc::O_NOFOLLOW);
        options.open(folder.join(name)).map(Some).or_else(|error| {
            let refused = matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            );
            if refused { Ok(None) } else { Err(error) }
        })
    }
}

/// Takes a lock without keeping the thread.
async fn lock(file: &File, kind: i32) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match flock::attempt(file, kind) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            done => return done,
        }
    }
}

/// Where the lock files are: `/tmp/qpipe-UID`, unless [`FOLDER`] names another place. One that only some sessions of a
/// user have, such as `$XDG_RUNTIME_DIR`, would hide its runs from each other.
fn place(named: Option<OsString>, user: u32) -> PathBuf {
    let named = named.filter(|folder| !folder.is_empty());
    named.map_or_else(|| format!("/tmp/qpipe-{user}").into(), PathBuf::from)
}

/// The folder of this user's lock files; `None` where it cannot be made.
fn own_folder() -> Result<Option<PathBuf>> {
    // SAFETY: no memory is passed, and it cannot fail.
    let user = unsafe { libc::geteuid() };
    let path = place(std::env::var_os(FOLDER), user);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    // Others can write beside it: what has its name may be anybody's.
    let there = match fs::symlink_metadata(&path) {
        Ok(there) => there,
        Err(_) if made.is_err() => return Ok(None),
        Err(error) => return Err(error).at("look at", &path),
    };
    let mode = there.permissions().mode() & 0o777;
    let (what, help) = if !there.is_dir() {
        ("is no folder".to_owned(), "remove it".to_owned())
    } else if there.uid() != user {
        (format!("belongs to user {}, not to {user}", there.uid()), "have it removed".to_owned())
    } else if mode & 0o077 != 0 {
        (format!("is open to other users (mode {mode:o})"), format!("chmod 700 {}", path.display()))
    } else {
        return Ok(Some(path));
    };
    let help =
        format!("{help}, or set {FOLDER} to a folder of your own, the same for all your runs");
    Err(RunError::LockFolder { path, what, help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sessions_of_a_user_have_one_place() {
        let path = |named: Option<&str>| place(named.map(OsString::from), 7);
        assert_eq!(path(None), Path::new("/tmp/qpipe-7"));
        assert_eq!(path(Some("")), Path::new("/tmp/qpipe-7"));
        assert_eq!(path(Some("/a")), Path::new("/a"));
    }

    #[test]
    fn what_a_stage_holds_is_told_to_runs_inside_it_on_this_machine_alone() {
        let machine = Machine {
            name: "this".to_owned(),
            folder: Some("/a".into()),
            inside: None,
            _folder: None,
        };
        for alone in [false, true] {
            let told = machine.inside("run", "stage", alone, Path::new("/scratch"));
            assert_eq!(Inside::read(&told.variable(), "this"), Some(told.clone()));
            assert_eq!(Inside::read(&told.variable(), "another"), None);
            let folder = if alone { "/scratch/locks" } else { "/a" };
            assert_eq!(told.folder.as_deref(), Some(Path::new(folder)));
        }
        assert_eq!(Inside::read("", "this"), None);
    }
}
