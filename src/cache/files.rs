//! Files that are whole or not there: written under a temporary name, flushed, renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Digest;
use super::error::{At, Result};

/// Names this process among all that use a cache, on other machines too: a part of the digest of
/// the machine's start, the process and its time.
pub(crate) fn process() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let own = format!("{} {time}", std::process::id());
        Digest::of(&[&boot, own.as_bytes()].concat()).short()[..8].to_owned()
    })
}

/// A name that no other process or thread uses at the same time.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", process(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Publishes `bytes` as `path` at once, flushed: readers see the old content or the new one, never a
/// part.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, File::sync_all)
}

/// As [`publish`], but a loss of power may leave a part: for what is flushed later.
pub(crate) fn publish_unflushed(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, |_| Ok(()))
}

fn write(path: &Path, bytes: &[u8], flush: impl Fn(&File) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).at("create", folder)?;
    // Without the file's own name: that may be as long as a name can be.
    let temporary = folder.join(format!(".{}.tmp", unique()));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| flush(&file)))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written.at("write", path)
}

/// Makes a file's content, or the names in a folder, survive a loss of power. What is gone
/// meanwhile needs no flush.
pub(crate) fn flush(path: &Path) -> Result<()> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("flush", path),
        _ => Ok(()),
    }
}

/// Whether [`publish`] was killed while it wrote this file.
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Whether a killed process left this temporary file: it is older than any that is being written.
pub(crate) fn is_leftover(path: &Path) -> bool {
    let changed = || fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
    let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > Duration::from_secs(3600));
    is_temporary(path) && changed().is_some_and(old)
}

/// Reads a file; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

/// Names in a folder, sorted; none where there is no folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list", folder),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.at("list", folder)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Removes a file or a whole folder, read-only folders too; nothing there is well.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("look at", path),
    };
    let removed = if metadata.is_dir() {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o200 == 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).at("open", path)?;
        }
        for child in list(path)? {
            remove(&child)?;
        }
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Bytes of a file or of all files below a folder; links are not followed.
pub(crate) fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            list(path).unwrap_or_default().iter().map(|child| size(child)).sum()
        }
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/file");
        publish(&path, b"one").unwrap();
        publish(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(list(path.parent().unwrap()).unwrap(), [path]);
    }

    #[test]
    fn read_only_folders_are_removed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("c"), "c").unwrap();
        fs::set_permissions(&below, fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(size(folder.path()), 1);
        remove(&folder.path().join("a")).unwrap();
        assert!(list(folder.path()).unwrap().is_empty());
    }
}
