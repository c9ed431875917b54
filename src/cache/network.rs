//! File systems of servers: what this machine knows of a file may be older than the file.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Whether a file is on a file system of a server (statfs(2), `linux/magic.h` and the file systems' own sources), FUSE among them.
pub fn is_remote(file: &File) -> bool {
    const REMOTE: [u32; 14] = [
        0x5346_414f, // AFS
        0x1983_0326, // BeeGFS
        0x00c3_6400, // Ceph
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB 2
        0x6573_5546, // FUSE
        0x0116_1970, // GFS 2
        0x4750_4653, // GPFS
        0x0bd0_0bd0, // Lustre
        0x564c,      // NCP
        0x6969,      // NFS
        0x7461_636f, // OCFS 2
        0x0102_1997, // 9P
        0x517b,      // SMB
    ];
    // SAFETY: an all-zero `statfs` is one.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `found` is valid for writing.
    let asked = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) };
    asked == 0 && REMOTE.contains(&(found.f_type as u32))
}

/// What a file is like now, of which `seen` was told: stat(2) of a server's file may be up to a minute old (nfs(5), `acregmax`; FUSE, `attr_timeout`), unless
/// the server is to be asked (statx(2), `AT_STATX_FORCE_SYNC`).
pub fn current(path: &Path, seen: Metadata) -> Metadata {
    static DEVICES: Mutex<BTreeMap<u64, bool>> = Mutex::new(BTreeMap::new());
    let devices = || DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.is_file() {
        return seen;
    }
    let known = devices().get(&seen.dev()).copied();
    let remote = match known {
        Some(remote) => remote,
        None => {
            // What cannot be opened is told where it is read.
            let Ok(file) = File::open(path) else { return seen };
            let remote = is_remote(&file);
            devices().insert(seen.dev(), remote);
            remote
        }
    };
    if !remote {
        return seen;
    }
    ask(path);
    std::fs::metadata(path).unwrap_or(seen)
}

/// Has the system ask the server for what it knows of a file, or of a folder: of that, which names are in it, too (that a name was not there is
/// remembered as long as the folder seems unchanged). Where it cannot, nothing changes.
pub fn ask(path: &Path) {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: an all-zero `statx` is one.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_STATX_FORCE_SYNC, libc::STATX_BASIC_STATS);
    // SAFETY: `path` ends in a zero, and `found` is valid for writing.
    unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut found) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_this_machine_is_as_it_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        let seen = std::fs::metadata(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(current(&path, seen.clone()).len(), 4);
        }
        // Gone, and no file.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(current(&path, seen).len(), 4);
        assert!(current(folder.path(), std::fs::metadata(folder.path()).unwrap()).is_dir());
        // Of the kernel, which is no server.
        assert!(!is_remote(&File::open("/proc/self/stat").unwrap()));
    }
}
