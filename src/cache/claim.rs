//! Claims: who runs an action holds its lock, and so does every process that it starts.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::error::{At, Result};
use super::{Cache, Digest, flock, processes};

/// The right to run an action, until it is dropped and the last process of its stage is gone.
#[derive(Debug)]
pub struct Claim {
    file: File,
    mark: String,
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Ours(Claim),
    /// A live runner has it; its process, where known.
    Theirs(Option<i32>),
    /// Processes that outlived their runner had it and were killed; ask again.
    Survivors(Vec<i32>),
}

impl Cache {
    /// Asks for the right to run the action `key`; does not wait.
    ///
    /// The lock file names the runner. Where that is gone but the lock is held, those who hold it
    /// are what a `kill -9` left of its stage: they are killed, so that they neither use the
    /// machine up nor go on writing.
    pub fn claim(&self, key: &Digest) -> Result<Claimed> {
        let path = self.lock_path(key)?;
        for attempt in 0..4 {
            let mut file = open(&path)?;
            if let Some(claim) = take(&mut file, key, &path)? {
                return Ok(Claimed::Ours(claim));
            }
            let owner = Owner::read(&mut file).at("read", &path)?;
            if owner.as_ref().is_some_and(Owner::is_elsewhere) {
                return Ok(Claimed::Theirs(None));
            }
            if let Some(pid) = owner.and_then(|it| it.alive()) {
                return Ok(Claimed::Theirs(Some(pid)));
            }
            // A runner that got the lock a moment ago may not have written its name yet.
            if attempt < 3 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        survivors(&path)
    }

    /// Removes the scratch folders of attempts that are over, as a killed run leaves them, and ends what
    /// it left running on them, whether or not this run needs the stage. Gives back whom it ended.
    pub fn sweep(&self) -> Result<Vec<i32>> {
        let mut ended = Vec::new();
        self.sweep_spent()?;
        for scratch in super::files::list(&self.place("scratch"))? {
            let name = scratch.file_name().unwrap_or_default().to_string_lossy();
            let key = name.split('.').next().unwrap_or_default().to_owned();
            let Ok(key) = Digest::try_from(key) else { continue };
            let claimed = match self.claim(&key)? {
                Claimed::Survivors(pids) => {
                    ended.extend(pids);
                    self.claim(&key)?
                }
                other => other,
            };
            // Held until the folder is gone, so that no attempt can begin meanwhile.
            if matches!(claimed, Claimed::Ours(_)) {
                super::files::remove(&scratch)?;
            }
        }
        Ok(ended)
    }

    /// Where scratch folders wait to be removed. Nobody needs what is there: any run may remove it.
    pub fn spent(&self) -> PathBuf {
        self.place("scratch").join("spent")
    }

    /// Removes the scratch folders that were put aside, by this run or another; more may come meanwhile.
    ///
    /// The run that put one aside may take it back at the same time. So each is renamed first: whoever is first has
    /// it. Otherwise a removal on its way into the folder would go on in it where it is used again.
    pub fn sweep_spent(&self) -> Result<()> {
        const GONE: &str = "gone.";
        let spent = self.spent();
        for folder in super::files::list(&spent)? {
            let name = folder.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(GONE.as_bytes()) {
                super::files::remove(&folder)?;
                continue;
            }
            let gone = spent.join(format!("{GONE}{}", super::files::unique()));
            match std::fs::rename(&folder, &gone) {
                Ok(()) => super::files::remove(&gone)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("remove", &folder),
            }
        }
        match std::fs::remove_dir(&spent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.at("remove", &spent),
        }
    }

    fn lock_path(&self, key: &Digest) -> Result<PathBuf> {
        let folder = self.place("locks");
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        Ok(folder.join(key.hex()))
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

/// Takes the lock if it is free.
fn take(file: &mut File, key: &Digest, path: &Path) -> Result<Option<Claim>> {
    match flock::attempt(file, libc::LOCK_EX) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error).at("lock", path),
    }
    let before = Owner::read(file).at("read", path)?;
    let file = file.try_clone().at("read", path)?;
    let claim = Claim::new(file, key).at("write", path)?;
    if let Some(before) = before {
        // What is left of its attempt dropped the lock, but hardly its environment.
        end(|| processes::marked(&before.mark)).at("look for what is left of", path)?;
    }
    Ok(Some(claim))
}

/// Kills what holds the lock of a runner that is gone.
fn survivors(path: &Path) -> Result<Claimed> {
    let mut file = open(path)?;
    let before = Owner::read(&mut file).at("read", path)?;
    if before.as_ref().is_some_and(Owner::is_elsewhere) {
        return Ok(Claimed::Theirs(None));
    }
    let mut found = processes::holders(&file).at("look for who holds", path)?;
    let mark = before.as_ref().map(|owner| owner.mark.as_str()).unwrap_or_default();
    let marked = processes::marked(mark).at("look for who holds", path)?;
    // A runner that took the lock while they were looked for wrote its name before it started
    // anything: then those found may be its own.
    let now = Owner::read(&mut file).at("read", path)?;
    let alive = now.as_ref().and_then(Owner::alive);
    if alive.is_some() || now != before {
        return Ok(Claimed::Theirs(alive));
    }
    // A runner that has just taken the lock is no survivor, nor is this one.
    found.retain(|pid| marked.contains(pid) || !processes::same_program(*pid));
    // One that was about to start a program of another stage has let go of the lock by now.
    let still = processes::holders(&file).at("look for who holds", path)?;
    found.retain(|pid| marked.contains(pid) || still.contains(pid));
    if found.is_empty() {
        // Of another user, or gone since.
        return Ok(Claimed::Theirs(None));
    }
    found.iter().copied().for_each(processes::kill);
    Ok(Claimed::Survivors(found))
}

/// Who took the lock last, as the lock file says; an orderly end empties it.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: i32,
    start: u64,
    mark: String,
    /// Where its number is one: [`place`].
    place: String,
}

/// What a process's number is good for: the boot and the PID namespace. The processes of a container have other numbers outside of it, where they
/// are seen nevertheless.
fn place() -> &'static str {
    static PLACE: OnceLock<String> = OnceLock::new();
    PLACE.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        format!("{}/{}", boot.trim(), namespace.display())
    })
}

impl Owner {
    /// Whether it runs, or ran, where this process can judge nothing by its number: in another container, or on another machine.
    fn is_elsewhere(&self) -> bool {
        self.place != place()
    }

    fn read(file: &mut File) -> io::Result<Option<Self>> {
        let mut text = String::new();
        file.rewind()?;
        match file.read_to_string(&mut text) {
            // Another process may be writing it just now.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            read => read?,
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [pid, start, mark, place] = words[..] else { return Ok(None) };
        let numbers = pid.parse().ok().zip(start.parse().ok());
        Ok(numbers.map(|(pid, start)| Self {
            pid,
            start,
            mark: mark.to_owned(),
            place: place.to_owned(),
        }))
    }

    /// Its process, if that lives.
    fn alive(&self) -> Option<i32> {
        (processes::start_time(self.pid) == Some(self.start)).then_some(self.pid)
    }
}

/// Kills what `find` finds until it finds nothing more: processes that fork meanwhile, too.
fn end(find: impl Fn() -> io::Result<Vec<i32>>) -> io::Result<Vec<i32>> {
    let own = std::process::id().cast_signed();
    let start = Instant::now();
    let mut ended = Vec::new();
    loop {
        let mut found = find()?;
        found.retain(|pid| *pid != own && processes::start_time(*pid).is_some());
        if found.is_empty() || start.elapsed() > Duration::from_secs(5) {
            return Ok(ended);
        }
        for pid in found {
            processes::kill(pid);
            if !ended.contains(&pid) {
                ended.push(pid);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Claim {
    fn new(mut file: File, key: &Digest) -> io::Result<Self> {
        static START: OnceLock<u64> = OnceLock::new();
        let pid = std::process::id();
        let start = START.get_or_init(|| processes::start_time(pid.cast_signed()).unwrap_or(0));
        let mark = format!("{}.{}", key.short(), super::files::unique());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{pid} {start} {mark} {}\n", place()).as_bytes())?;
        Ok(Self { file, mark })
    }

    /// The descriptor that the processes of the stage must inherit.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The value of [`processes::MARK`] that they must inherit.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Kills every process of the stage that is left, wherever it hid: those below this process with
    /// the lock open or with the mark in their environment ([`processes::adopt`] keeps them below
    /// it). `supervised`: children that somebody waits for. Returns whom it killed.
    pub fn end_survivors(&self, supervised: impl Fn(i32) -> bool) -> io::Result<Vec<i32>> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.file.metadata()?;
        let lock = (metadata.dev(), metadata.ino());
        end(|| {
            let mut found = processes::descendants()?;
            found.retain(|&pid| {
                if !supervised(pid) && processes::start_time(pid).is_none() {
                    processes::reap(pid);
                }
                processes::belongs(pid, lock, &self.mark)
            });
            Ok(found)
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Nobody needs to look for this attempt any more; a name left behind does no harm.
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_one_at_a_time_and_names_its_runner() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        let Claimed::Ours(claim) = cache.claim(&key).unwrap() else { panic!("not ours") };
        let own = std::process::id().cast_signed();
        assert!(matches!(cache.claim(&key).unwrap(), Claimed::Theirs(Some(pid)) if pid == own));
        drop(claim);
        assert!(matches!(cache.claim(&key).unwrap(), Claimed::Ours(_)));
    }

    #[test]
    fn a_holder_whose_runner_is_gone_is_killed() {
        use std::os::unix::process::CommandExt;
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let key = Digest::of(b"key");
        let Claimed::Ours(mut claim) = cache.claim(&key).unwrap() else { panic!("not ours") };
        let descriptor = claim.descriptor();
        let mut command = std::process::Command::new("sleep");
        command.arg("60");
        // SAFETY: fcntl is safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::fcntl(descriptor, libc::F_SETFD, 0);
                Ok(())
            })
        };
        let mut child = command.spawn().unwrap();
        let mut owned = |text: String| {
            claim.file.rewind().unwrap();
            claim.file.set_len(0).unwrap();
            claim.file.write_all(text.as_bytes()).unwrap();
        };
        // A runner in a container has another number there, and may live.
        owned("4194305 1 gone boot/pid:[1]\n".to_owned());
        assert!(matches!(cache.claim(&key).unwrap(), Claimed::Theirs(None)));
        assert!(child.try_wait().unwrap().is_none());
        // As if another runner had written the file and died.
        owned(format!("4194305 1 gone {}\n", place()));
        let path = folder.path().join("locks").join(key.hex());
        // Our own descriptor goes without its `Drop`, which would empty the file.
        // SAFETY: the descriptor is closed once: `forget` keeps `claim` from closing it again.
        unsafe { libc::close(descriptor) };
        std::mem::forget(claim);
        let pid = child.id().cast_signed();
        let Claimed::Survivors(killed) = cache.claim(&key).unwrap() else { panic!("{path:?}") };
        assert_eq!(killed, [pid]);
        child.wait().unwrap();
        assert!(matches!(cache.claim(&key).unwrap(), Claimed::Ours(_)));
    }
}
