//! File systems of servers: what this machine knows of a file may be older than the file.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Whether a file is on a file system of a server (statfs(2), `linux/magic.h`), FUSE among them.
pub fn is_remote(file: &File) -> bool {
    // AFS, Ceph, CIFS, SMB 2, FUSE, GFS 2, GPFS, Lustre, NCP, NFS, OCFS 2, 9P, SMB.
    const REMOTE: [u32; 13] = [
        0x5346_414f,
        0x00c3_6400,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0116_1970,
        0x4750_4653,
        0x0bd0_0bd0,
        0x564c,
        0x6969,
        0x7461_636f,
        0x0102_1997,
        0x517b,
    ];
    // SAFETY: an all-zero `statfs` is one.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `found` is valid for writing.
    let asked = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) };
    asked == 0 && REMOTE.contains(&(found.f_type as u32))
}

/// What a file is like now, of which `seen` was told: stat(2) of a server's file may be up to a minute old (nfs(5), `acregmax`), and only who opens it
/// is told anew ("close-to-open consistency").
pub fn current(path: &Path, seen: Metadata) -> Metadata {
    static DEVICES: Mutex<BTreeMap<u64, bool>> = Mutex::new(BTreeMap::new());
    let known =
        |device: u64| DEVICES.lock().unwrap_or_else(PoisonError::into_inner).get(&device).copied();
    if !seen.is_file() || known(seen.dev()) == Some(false) {
        return seen;
    }
    // What cannot be opened is told where it is read.
    let Ok(file) = File::open(path) else { return seen };
    let remote = known(seen.dev()).unwrap_or_else(|| {
        let remote = is_remote(&file);
        DEVICES.lock().unwrap_or_else(PoisonError::into_inner).insert(seen.dev(), remote);
        remote
    });
    if remote { file.metadata().unwrap_or(seen) } else { seen }
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
