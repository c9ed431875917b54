//! Seals: the time of modification of a stored file shows whether it was written to since.
//!
//! A file keeps the second in which it was written and gets nanoseconds that no clock gives by chance. Whoever writes into it later, through a link or as
//! root, breaks that. Other marks would not do: each name that a stage is given of an object (a hard link) sets its time of change, and an index of
//! sizes and times would be one more file to keep, and to lose.

use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::Digest;
use super::tree::hash_file;

/// The nanoseconds. File systems that keep tenths of microseconds (SMB) keep them too.
const NANOSECONDS: i64 = 271_828_100;

/// Seals a file: what is written into it from now on is seen.
pub(super) fn set(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let seconds = u64::try_from(file.metadata()?.mtime()).unwrap_or_default();
    let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(NANOSECONDS as u64);
    file.set_times(FileTimes::new().set_modified(time))
}

/// Whether nobody wrote into a sealed file.
pub(super) fn is_unbroken(file: &Metadata) -> bool {
    file.mtime_nsec() == NANOSECONDS
}

/// Whether a file without a whole seal has the content of that digest after all; `again` seals it then.
pub(super) fn reads_as(path: &Path, digest: &Digest, again: bool) -> bool {
    let time =
        || fs::symlink_metadata(path).map(|file| (file.mtime(), file.mtime_nsec(), file.size()));
    let before = time();
    if !hash_file(path).is_ok_and(|(found, _)| found == *digest) {
        return false;
    }
    // One that belongs to another user cannot be sealed: it is read each time.
    if again && before.is_ok_and(|before| time().is_ok_and(|after| after == before)) {
        let _ = set(path);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_into_a_file_breaks_its_seal_and_who_only_looks_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, "content").unwrap();
        let whole = || is_unbroken(&fs::symlink_metadata(&path).unwrap());
        let second = || fs::symlink_metadata(&path).unwrap().mtime();
        let before = second();
        assert!(!whole());
        set(&path).unwrap();
        assert!(whole() && second() == before);
        fs::hard_link(&path, &link).unwrap();
        fs::remove_file(&link).unwrap();
        assert!(fs::read(&path).unwrap() == b"content" && whole());
        fs::write(&path, "other").unwrap();
        assert!(!whole());
        assert!(!reads_as(&path, &Digest::of(b"content"), true) && !whole());
        assert!(reads_as(&path, &Digest::of(b"other"), false) && !whole());
        assert!(reads_as(&path, &Digest::of(b"other"), true) && whole());
    }
}
