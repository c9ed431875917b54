//! The room left on a disk.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// With less room than this a disk counts as full, bytes: nothing of use fits on it.
const FULL: u64 = 64 << 10;

/// Whether there is no room left where `path` is; a system that does not tell has room.
pub fn is_full(path: &Path) -> bool {
    room(path).is_some_and(|(bytes, files)| bytes < FULL || files == Some(0))
}

/// Bytes and files that still fit; file systems without a limit of files tell none.
fn room(path: &Path) -> Option<(u64, Option<u64>)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: zeros are a valid `statvfs`; it holds numbers only.
    let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and the system writes no more than a `statvfs`.
    let done = unsafe { libc::statvfs(path.as_ptr(), &raw mut room) };
    let files = (room.f_files > 0).then_some(room.f_favail);
    (done == 0).then(|| (room.f_bavail.saturating_mul(room.f_frsize), files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_and_a_missing_one_is_not_full() {
        let folder = tempfile::tempdir().unwrap();
        assert!(room(folder.path()).is_some_and(|(bytes, _)| bytes > 0));
        assert!(!is_full(&folder.path().join("none")));
    }
}
