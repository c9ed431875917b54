//! Finding processes by what they hold open: what is left of a stage whose runner is gone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

/// Environment variable that every process of a stage inherits: names the attempt.
pub const MARK: &str = "QPIPE_ATTEMPT";

/// Processes that hold the file's lock (flock(2)): who took it and all that inherited it. Who only
/// has the file open, such as one that waits for the lock, is not among them.
///
/// Those of other users cannot be looked into, unless this process is privileged.
pub fn holders(file: &File) -> io::Result<Vec<i32>> {
    let metadata = file.metadata()?;
    let identity = (metadata.dev(), metadata.ino());
    Ok(pids()?.into_iter().filter(|pid| holds(*pid, identity)).collect())
}

/// Processes whose environment at their start had `MARK=value`.
pub fn marked(value: &str) -> io::Result<Vec<i32>> {
    Ok(pids()?.into_iter().filter(|pid| has_mark(*pid, value)).collect())
}

/// All processes below this one: its children, theirs, and so on, those that lost their parent
/// included where this process is their reaper ([`adopt`]). Zombies are among them.
pub fn descendants() -> io::Result<Vec<i32>> {
    let own = std::process::id().cast_signed();
    let mut found = vec![own];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        match children(parent) {
            Some(children) => found.extend(children),
            // A process that is gone has none; a system that does not list them is searched.
            None if parent == own => return descendants_by_search(own),
            None => {}
        }
    }
    found.remove(0);
    Ok(found)
}

/// Children of all threads of a process (proc(5), `children`).
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(found)
}

fn descendants_by_search(own: i32) -> io::Result<Vec<i32>> {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()
    };
    let pairs: Vec<(i32, Option<i32>)> =
        pids()?.into_iter().map(|pid| (pid, parent(pid))).collect();
    let mut found = vec![own];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        next += 1;
        found.extend(pairs.iter().filter(|(_, parent)| *parent == Some(above)).map(|(pid, _)| pid));
    }
    found.remove(0);
    Ok(found)
}

/// Makes this process the parent of all processes below it that lose theirs (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`): they stay among its [`descendants`].
pub fn adopt() -> io::Result<()> {
    // SAFETY: no memory is passed.
    let done = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes note of the end of a child that is a zombie.
pub fn reap(pid: i32) {
    // SAFETY: a null status is allowed; a process that is no child of ours is no error worth telling.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

/// Whether a process inherited an attempt's lock (the file of that device and inode) or mark.
///
/// A child of the runner's that has not started its program yet has all of the runner's files open: it is
/// of another stage, and does not belong. Its program is looked at first: once it is another one, the
/// files that it should not have are closed.
pub fn belongs(pid: i32, lock: (u64, u64), mark: &str) -> bool {
    has_mark(pid, mark) || (!same_program(pid) && holds(pid, lock))
}

fn has_mark(pid: i32, value: &str) -> bool {
    let wanted = format!("{MARK}={value}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|line| line == wanted.as_bytes())
}

fn pids() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

fn holds(pid: i32, identity: (u64, u64)) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        // Metadata follows the link to the open file itself, whatever became of its name.
        let same = fs::metadata(descriptor.path())
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == identity);
        // The system lists the locks of each open file (proc(5), `fdinfo`).
        let number = descriptor.file_name();
        let info = || fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.display()));
        same && info().is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:")))
    })
}

/// When a process started, in clock ticks since boot: with its number it names a process for good.
/// `None` if there is none, or only its zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether a process runs the program that this one runs, by its file's name.
pub fn same_program(pid: i32) -> bool {
    let program = |pid: &str| {
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        // What a build replaced meanwhile is marked so.
        Some(name.trim_end_matches(" (deleted)").to_owned())
    };
    program(&pid.to_string()).is_some_and(|name| Some(name) == program("self"))
}

/// Ends a process at once.
pub fn kill(pid: i32) {
    // SAFETY: kill passes no memory; a process that is gone already is no error worth telling.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_what_it_holds_and_a_zombie_has_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = File::create(&path).unwrap();
        let own = std::process::id().cast_signed();
        assert!(holders(&file).unwrap().is_empty(), "open, but not locked");
        crate::cache::flock::attempt(&file, libc::LOCK_SH).unwrap();
        assert_eq!(holders(&file).unwrap(), [own]);
        assert!(start_time(own).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let gone = || start_time(pid).is_none();
        for _ in 0..200 {
            if gone() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(gone());
        child.wait().unwrap();
    }
}
