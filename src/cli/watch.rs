//! `--watch`: again whenever an input changes.
//!
//! Stamps of files (size, times, inode) are compared every half second. The system's notifications
//! would be quicker, but see nothing of what other machines write to a network's file system, and
//! need a watch for each of a data set's folders, of which Linux has a limited number.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::exec::stderr;

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_millis(500);
/// So much of the time at most is spent on looking: one part of so many.
const PART: u32 = 10;

/// Stamps of files and folders, as far as they were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<(PathBuf, Depth), u64>);

/// How much of a folder counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// What lies in it, not what is in its folders.
    Entries,
    /// All.
    All,
}

impl Seen {
    /// Takes the stamps of files, and of folders with all that is in them. One that is not there has
    /// a stamp as well: its coming is a change.
    pub fn take(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        paths.into_iter().for_each(|path| self.add(path, Depth::All));
    }

    /// Takes the stamps of what lies in a folder.
    pub fn take_entries(&mut self, folder: PathBuf) {
        self.add(folder, Depth::Entries);
    }

    fn add(&mut self, path: PathBuf, depth: Depth) {
        let stamp = stamp(&path, depth);
        self.0.insert((path, depth), stamp);
    }

    fn now(&self) -> Self {
        let now = |(key, _): (&(PathBuf, Depth), &u64)| (key.clone(), stamp(&key.0, key.1));
        Self(self.0.iter().map(now).collect())
    }
}

fn stamp(path: &Path, depth: Depth) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut open = vec![path.to_path_buf()];
    let mut top = true;
    while let Some(path) = open.pop() {
        // What a link points to counts; only the path itself is followed into a folder.
        let Ok(metadata) = path.metadata() else { continue };
        (path.as_os_str(), metadata.dev(), metadata.ino(), metadata.len()).hash(&mut hasher);
        (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
            .hash(&mut hasher);
        let link = path.symlink_metadata().is_ok_and(|own| own.is_symlink());
        let first = std::mem::take(&mut top);
        if metadata.is_dir() && (first || depth == Depth::All && !link) {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            let mut below: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            below.sort();
            open.append(&mut below);
        }
    }
    hasher.finish()
}

/// Signals that end it, from before the first run on: none is lost between two.
struct Ends {
    runtime: Runtime,
    signals: [Signal; 3],
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals = runtime.block_on(async { kinds.map(signal) });
        let [a, b, c] = signals;
        Ok(Self { runtime, signals: [a?, b?, c?] })
    }

    /// Whether one came within so long.
    fn within(&mut self, time: Duration) -> bool {
        let [a, b, c] = &mut self.signals;
        self.runtime.block_on(async {
            tokio::select! {
                _ = a.recv() => true,
                _ = b.recv() => true,
                _ = c.recv() => true,
                () = tokio::time::sleep(time) => false,
            }
        })
    }
}

/// Does something once, and again after each change of what it has seen, until a signal ends it:
/// success, if it was waiting then.
///
/// `once` takes the stamps of what it reads before it reads it. It is not started again before the
/// files have been still for a moment.
pub fn watch(told: bool, mut once: impl FnMut(&mut Seen) -> Exit) -> Exit {
    let mut ends = match Ends::new() {
        Ok(ends) => ends,
        Err(error) => {
            stderr::line(format_args!("error: cannot take over signals: {error}"));
            return Exit::Machine;
        }
    };
    loop {
        let mut seen = Seen::default();
        if once(&mut seen) == Exit::Interrupted {
            return Exit::Interrupted;
        }
        if told {
            stderr::line(format_args!("watching for changes; Ctrl-C ends"));
        }
        let (mut last, mut pause) = (seen.clone(), Duration::ZERO);
        loop {
            if ends.within(pause) {
                return Exit::Success;
            }
            let start = Instant::now();
            let now = seen.now();
            pause = INTERVAL.max(start.elapsed() * PART);
            let still = now == last;
            if still && now != seen {
                break;
            }
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(place("data/below")).unwrap();
        std::fs::write(place("data/below/a"), "a").unwrap();
        std::os::unix::fs::symlink(place("data"), place("data/below/loop")).unwrap();
        std::os::unix::fs::symlink("data", place("link")).unwrap();
        let mut seen = Seen::default();
        seen.take([place("link"), place("late")]);
        assert_eq!(seen.now(), seen);
        let mut changed = |what: &str| {
            let now = seen.now();
            assert_ne!(now, seen, "{what}");
            seen = now;
        };
        std::fs::write(place("data/below/a"), "b").unwrap();
        changed("content of the same size");
        std::fs::write(place("data/below/new"), "").unwrap();
        changed("a new file");
        std::fs::remove_file(place("data/below/new")).unwrap();
        changed("a file less");
        std::fs::write(place("late"), "").unwrap();
        changed("what was not there");

        let mut beside = Seen::default();
        beside.take_entries(folder.path().to_path_buf());
        std::fs::write(place("data/below/deep"), "").unwrap();
        assert_eq!(beside.now(), beside, "below a folder");
        std::fs::write(place("more"), "").unwrap();
        assert_ne!(beside.now(), beside);
    }
}
