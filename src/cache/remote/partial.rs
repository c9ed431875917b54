//! What has arrived of an object so far, kept so that the next attempt goes on from there.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::layout::Encoding;
use crate::cache::error::At;
use crate::cache::{Cache, Digest, files, flock};

/// The folder of a cache for what is on its way from or to a remote.
pub(super) fn folder(cache: &Cache) -> Result<PathBuf, Failure> {
    let folder = cache.place("remote").join("partial");
    fs::create_dir_all(&folder).at("create", &folder)?;
    Ok(folder)
}

/// A name in [`folder`] that nobody else uses.
pub(super) fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!(".{}.tmp", files::unique()))
}

/// What has arrived of an object, as it is stored in the remote; ours as long as this lives.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl Partial {
    /// The file for an object. It has a name of its own if another run loads the same object: then
    /// it is not found again.
    pub(super) fn open(
        cache: &Cache,
        digest: &Digest,
        encoding: Encoding,
    ) -> Result<Self, Failure> {
        let folder = folder(cache)?;
        let path = folder.join(format!("{digest}{}", encoding.suffix()));
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path).at("open", path)
        };
        let file = open(&path)?;
        let ours = flock::attempt(&file, libc::LOCK_EX).is_ok();
        // Whoever had it may have removed it, or made it an object, since it was opened.
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let same = file.metadata().ok().map(inode) == fs::symlink_metadata(&path).ok().map(inode);
        if ours && same {
            return Ok(Self { path, file });
        }
        let path = temporary(&folder);
        let file = open(&path)?;
        Ok(Self { path, file })
    }

    /// Bytes that have arrived.
    pub(super) fn len(&self) -> Result<u64, Failure> {
        Ok(self.file.metadata().at("look at", &self.path)?.len())
    }

    /// Forgets what has arrived.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        Ok(self.file.set_len(0).at("cut", &self.path)?)
    }

    /// Goes to the end, to write there.
    pub(super) fn end(&self) -> Result<u64, Failure> {
        Ok((&self.file).seek(SeekFrom::End(0)).at("read", &self.path)?)
    }

    /// Removes the file.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        Ok(files::remove(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_partial_file_is_found_again_but_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let digest = Digest::of(b"x");
        let open = || Partial::open(&cache, &digest, Encoding::Zstd).unwrap();
        let one = open();
        (&one.file).write_all(b"begun").unwrap();
        let two = open();
        assert_eq!((two.len().unwrap(), files::is_temporary(&two.path)), (0, true));
        let path = one.path.clone();
        drop(one);
        let again = open();
        assert_eq!((again.len().unwrap(), &again.path), (5, &path));
        again.remove().unwrap();
        assert_eq!(open().len().unwrap(), 0);
    }
}
