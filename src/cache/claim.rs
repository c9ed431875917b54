//! Claims: who runs an action holds its lock, and so does every process that it starts.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{At, Result};
use super::{Cache, Digest, processes};

/// flock(2) without waiting; `WouldBlock` if another open file holds it.
pub(crate) fn flock(file: &File, operation: i32) -> io::Result<()> {
    // SAFETY: flock on a descriptor that `file` keeps open; no memory is passed.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The right to run an action, until it is dropped and the last process of its stage is gone.
#[derive(Debug)]
pub struct Claim {
    file: File,
    key: Digest,
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
        let folder = self.place("locks");
        std::fs::create_dir_all(&folder).at("create", &folder)?;
        let path = folder.join(key.hex());
        let options =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options().at("open", &path)?;
        for attempt in 0..4 {
            match flock(&file, libc::LOCK_EX) {
                Ok(()) => {
                    end_marked(&mut file).at("read", &path)?;
                    return Claim::new(file, key).at("write", &path).map(Claimed::Ours);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(error).at("lock", &path);
                }
                Err(_) => {}
            }
            if let Some(pid) = owner(&mut file).at("read", &path)? {
                return Ok(Claimed::Theirs(Some(pid)));
            }
            // A runner that got the lock a moment ago may not have written its name yet.
            if attempt < 3 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        survivors(&file, &path)
    }

    /// The scratch folders of earlier attempts at `key`: nobody uses them while the claim is ours.
    pub fn abandoned(&self, claim: &Claim) -> Result<Vec<PathBuf>> {
        let prefix = claim.key.hex();
        let mut found = super::files::list(&self.place("scratch"))?;
        found.retain(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        });
        Ok(found)
    }
}

/// Kills what holds the lock of a runner that is gone.
fn survivors(file: &File, path: &Path) -> Result<Claimed> {
    let own = std::process::id().cast_signed();
    let mut survivors = processes::holders(file).at("look for who holds", path)?;
    survivors.retain(|pid| *pid != own);
    if survivors.is_empty() {
        // Of another user, or gone since.
        return Ok(Claimed::Theirs(None));
    }
    survivors.iter().copied().for_each(processes::kill);
    Ok(Claimed::Survivors(survivors))
}

/// The live runner that the lock file names.
fn owner(file: &mut File) -> io::Result<Option<i32>> {
    let text = content(file)?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (words.next(), words.next()) else { return Ok(None) };
    let Ok(pid) = i32::try_from(pid) else { return Ok(None) };
    Ok((processes::start_time(pid) == Some(start)).then_some(pid))
}

fn content(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    // Another process may be writing it just now.
    match file.read_to_string(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
        _ => Ok(text),
    }
}

/// Ends what is left of the attempt that the lock file names, where it dropped the lock but not its
/// environment.
fn end_marked(file: &mut File) -> io::Result<()> {
    let text = content(file)?;
    if let Some(mark) = text.split_whitespace().nth(2) {
        end(|| processes::marked(mark))?;
    }
    Ok(())
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
        let pid = std::process::id();
        let start = processes::start_time(pid.cast_signed()).unwrap_or_default();
        let mark = format!("{}.{}", key.short(), super::files::unique());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{pid} {start} {mark}\n").as_bytes())?;
        Ok(Self { file, key: *key, mark })
    }

    /// The descriptor that the processes of the stage must inherit.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The value of [`processes::MARK`] that they must inherit.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Kills every process of the stage that is left, wherever it hid: those with the lock open or
    /// with the mark in their environment. Returns whom it killed.
    pub fn end_survivors(&self) -> io::Result<Vec<i32>> {
        end(|| {
            let mut found = processes::holders(&self.file)?;
            found.extend(processes::marked(&self.mark)?);
            found.sort_unstable();
            found.dedup();
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
        // As if another runner had written the file and died.
        claim.file.rewind().unwrap();
        claim.file.set_len(0).unwrap();
        claim.file.write_all(b"4194305 1 gone\n").unwrap();
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
