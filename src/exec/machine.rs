//! The machine among several runs: who measures has it alone.
//!
//! Each stage that runs holds the lock file `machine` in shared mode, one that needs the machine
//! alone holds it alone. To begin, both pass through the file `gate`: one that waits to be alone
//! holds the gate meanwhile, so that no new stage begins and its turn comes. The files lie in one
//! folder of this user's, whatever session its runs are of; runs of other users are not seen.
//!
//! A stage that is given GPUs holds the lock file of each besides, which stages of its run share. It
//! takes them when it has its turn, all at once or none: who holds one waits for nobody.
//!
//! A run inside a stage, as of a program that calls `qpipe run`, would wait for that stage, which
//! waits for it. So it takes part in the stage's turn ([`Inside`]) and waits for none, and for
//! what the stage has alone, the machine or a GPU, the runs inside it have lock files of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{At, Result, RunError};
use super::host;
use super::resources::Grant;
use crate::cache::{flock, plain_name};

/// This machine, as its runs share it.
#[derive(Debug)]
pub struct Machine {
    /// Which one it is.
    name: String,
    /// Where its lock files are; `None`: they cannot be made, so there is nobody to wait for.
    folder: Option<PathBuf>,
    /// The stage that this run is inside of.
    inside: Option<Inside>,
    /// Names of GPUs → what they are called whatever their names.
    ids: BTreeMap<String, String>,
    /// GPUs that stages of this run hold, by id.
    held: RefCell<BTreeMap<String, Weak<Card>>>,
    /// What removes old temporary files leaves a folder alone that is locked (systemd-tmpfiles(8)).
    _folder: Option<File>,
}

/// A part of the machine is ours, or all of it, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    _machine: Option<File>,
}

/// A GPU is this run's, until the last of its stages drops this.
#[derive(Debug)]
pub struct Card {
    _file: Option<File>,
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
    /// Ids of GPUs that the stage, or one that it is inside of, was given → where their lock files are.
    gpus: BTreeMap<String, PathBuf>,
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
    /// With its lock files. `ids`: of GPUs, by their names; others are known by name.
    ///
    /// # Errors
    ///
    /// Their folder is not this user's alone.
    pub fn open(ids: BTreeMap<String, String>) -> Result<Self> {
        let held = RefCell::default();
        let name = host::identity();
        let told = std::env::var(Inside::VARIABLE).unwrap_or_default();
        if let Some(inside) = Inside::read(&told, &name) {
            let own = inside.folder.iter().filter(|_| inside.alone).chain(inside.gpus.values());
            own.for_each(|folder| fs::create_dir_all(folder).unwrap_or_default());
            let folder = inside.folder.clone();
            return Ok(Self { name, folder, inside: Some(inside), ids, held, _folder: None });
        }
        let folder = own_folder()?;
        let lock = folder.as_ref().and_then(|folder| File::open(folder).ok());
        if let Some(lock) = &lock {
            let _ = flock::attempt(lock, libc::LOCK_SH);
        }
        Ok(Self { name, folder, inside: None, ids, held, _folder: lock })
    }

    /// The stage that this run is inside of, where it has no turn of the machine alone: nothing of the run can have.
    pub fn shared_by(&self) -> Option<&Inside> {
        self.inside.as_ref().filter(|inside| !inside.alone)
    }

    /// What a stage of this run tells runs inside it; below `root` it has files of its own.
    pub fn inside(&self, run: &str, stage: &str, grant: &Grant, root: &Path) -> Inside {
        let (own, alone) = (root.join("locks"), grant.alone());
        let mut gpus = BTreeMap::new();
        if !alone {
            gpus.extend(self.inside.iter().flat_map(|inside| inside.gpus.clone()));
            gpus.extend(grant.gpus.iter().map(|name| (self.id(name).to_owned(), own.clone())));
        }
        Inside {
            machine: self.name.clone(),
            run: run.to_owned(),
            stage: stage.to_owned(),
            alone,
            folder: if alone { Some(own) } else { self.folder.clone() },
            gpus,
        }
    }

    /// Waits for the machine.
    pub async fn turn(&self, alone: bool) -> io::Result<Turn> {
        if self.shared_by().is_some() {
            return Ok(Turn { _machine: None });
        }
        let Some(folder) = &self.folder else { return Ok(Turn { _machine: None }) };
        let (Some(gate), Some(machine)) = (open(folder, "gate")?, open(folder, "machine")?) else {
            return Ok(Turn { _machine: None });
        };
        let kind = if alone { libc::LOCK_EX } else { libc::LOCK_SH };
        lock(&gate, kind).await?;
        lock(&machine, kind).await?;
        Ok(Turn { _machine: Some(machine) })
    }

    /// Takes GPUs, by their names; `None` where a stage of another run has one.
    pub fn cards(&self, names: &[String]) -> io::Result<Option<Vec<Rc<Card>>>> {
        names.iter().map(|name| self.card(name)).collect()
    }

    /// Whether no stage of another run has a GPU.
    pub fn has_free(&self, name: &str) -> bool {
        // What is wrong with its file is told to the stage that takes it.
        !matches!(self.card(name), Ok(None))
    }

    fn card(&self, name: &str) -> io::Result<Option<Rc<Card>>> {
        let id = self.id(name);
        if let Some(card) = self.held.borrow().get(id).and_then(Weak::upgrade) {
            return Ok(Some(card));
        }
        let given = self.inside.as_ref().and_then(|inside| inside.gpus.get(id));
        let file = match given.or(self.folder.as_ref()) {
            Some(folder) => open(folder, &plain_name(&format!("gpu-{id}")))?,
            None => None,
        };
        match file.as_ref().map_or(Ok(()), |file| flock::attempt(file, libc::LOCK_EX)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            taken => taken?,
        }
        let card = Rc::new(Card { _file: file });
        self.held.borrow_mut().insert(id.to_owned(), Rc::downgrade(&card));
        Ok(Some(card))
    }

    fn id<'n>(&'n self, name: &'n str) -> &'n str {
        self.ids.get(name).map_or(name, String::as_str)
    }
}

/// Opens a lock file; `None` where it cannot be made.
fn open(folder: &Path, name: &str) -> io::Result<Option<File>> {
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
impl Machine {
    /// With its lock files in a folder, and a GPU `0` that is `GPU-a`.
    pub fn of_test(folder: &Path) -> Self {
        let ids = BTreeMap::from([("0".to_owned(), "GPU-a".to_owned())]);
        let (name, folder, held) = ("this".to_owned(), Some(folder.into()), RefCell::default());
        Self { name, folder, inside: None, ids, held, _folder: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::resources::{Capacity, Need, Pool};
    use super::*;

    #[test]
    fn all_sessions_of_a_user_have_one_place() {
        let path = |named: Option<&str>| place(named.map(OsString::from), 7);
        assert_eq!(path(None), Path::new("/tmp/qpipe-7"));
        assert_eq!(path(Some("")), Path::new("/tmp/qpipe-7"));
        assert_eq!(path(Some("/a")), Path::new("/a"));
    }

    fn machine(folder: &Path, inside: Option<Inside>) -> Machine {
        Machine { inside, ..Machine::of_test(folder) }
    }

    fn grant(alone: bool) -> Grant {
        let capacity = Capacity { jobs: 1, cpus: 1.0, memory: 0, gpus: vec!["0".to_owned()] };
        Pool::new(capacity).take(&Need { gpus: 1.0, alone, ..Need::LIGHT }).unwrap()
    }

    #[test]
    fn what_a_stage_holds_is_told_to_runs_inside_it_on_this_machine_alone() {
        let outer = machine(Path::new("/a"), None);
        let inside = |of: &Machine, alone, root| {
            let told = of.inside("run", "stage", &grant(alone), Path::new(root));
            assert_eq!(Inside::read(&told.variable(), "this"), Some(told.clone()));
            assert_eq!(Inside::read(&told.variable(), "another"), None);
            told
        };
        let gpu = |folder: &str| BTreeMap::from([("GPU-a".to_owned(), PathBuf::from(folder))]);
        let told = inside(&outer, false, "/b");
        assert_eq!((told.folder.clone(), &told.gpus), (Some("/a".into()), &gpu("/b/locks")));
        // The innermost has the card of the stage between.
        let told = inside(&machine(Path::new("/a"), Some(told)), false, "/c");
        assert_eq!((told.folder, told.gpus), (Some("/a".into()), gpu("/c/locks")));
        let told = inside(&outer, true, "/b");
        assert_eq!((told.folder, told.gpus), (Some("/b/locks".into()), BTreeMap::new()));
        assert_eq!(Inside::read("", "this"), None);
    }

    #[test]
    fn a_gpu_is_one_runs_at_a_time_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (machine(folder.path(), None), machine(folder.path(), None));
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let held = one.cards(&names(&["0"])).unwrap().unwrap();
        let part = one.cards(&names(&["GPU-a"])).unwrap().expect("stages of a run share it");
        assert!(two.cards(&names(&["1", "GPU-a"])).unwrap().is_none());
        assert!(!two.has_free("0") && two.has_free("1") && one.has_free("1"));
        drop(held);
        assert!(!two.has_free("0"), "one of its stages has it still");
        drop(part);
        assert!(two.has_free("0") && two.cards(&names(&["0", "1"])).unwrap().is_some());
    }
}
