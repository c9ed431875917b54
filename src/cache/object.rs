//! Objects: files and folders by the digest of their content, whole, read-only, stored once.

use std::fs::{self, File, Metadata, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;

use super::error::{At, CacheError, Result};
use super::tree::{Entry, Manifest, hash_file, regular, walk};
use super::{Cache, Digest, StoredOutput, files, network, seal};

/// What [`Cache::store`] put away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Digest of the file, or of the folder's manifest.
    pub digest: Digest,
    /// Whether it is a folder.
    pub directory: bool,
    /// Bytes in all.
    pub bytes: u64,
}

impl Cache {
    /// Moves a file or folder into the store. It must lie on the cache's file system: no second
    /// copy is made, unless the file is somebody else's: there is a symbolic link on the way to it,
    /// or it has another name.
    ///
    /// # Errors
    ///
    /// [`CacheError::StillWritten`] if a process has a file open for writing;
    /// [`CacheError::NotStorable`] for pipes, sockets and devices.
    pub fn store(&self, source: &Path) -> Result<Stored> {
        let metadata = fs::metadata(source).at("look at", source)?;
        regular(source, &metadata)?;
        if !metadata.is_dir() {
            let (digest, bytes) = self.store_file(source, source)?;
            return Ok(Stored { digest, directory: false, bytes });
        }
        let mut manifest = Manifest::default();
        for found in walk(source)? {
            let (digest, bytes) = self.store_file(source, &found.path)?;
            manifest.entries.push(Entry { path: found.relative, digest, bytes });
        }
        self.store_manifest(&manifest)?;
        Ok(Stored { digest: manifest.digest(), directory: true, bytes: manifest.bytes() })
    }

    /// Stores a file of the output `root`, or `root` itself. The root's own folder is the stage's.
    fn store_file(&self, root: &Path, source: &Path) -> Result<(Digest, u64)> {
        let own = fs::symlink_metadata(source).at("look at", source)?;
        let linked = source
            .ancestors()
            .take_while(|path| path.starts_with(root))
            .any(|path| path.is_symlink());
        // What is known under another name too stays whose it is.
        let source = if linked || own.nlink() > 1 {
            let copy = root.with_file_name(format!(".{}.copy", files::unique()));
            fs::copy(source, &copy).at("copy", source)?;
            copy
        } else {
            source.to_path_buf()
        };
        let file = File::open(&source).at("read", &source)?;
        if written_by_others(&file) {
            return Err(CacheError::StillWritten { path: source });
        }
        let metadata = file.metadata().at("look at", &source)?;
        let mode = 0o444 | (metadata.mode() & 0o111);
        fs::set_permissions(&source, Permissions::from_mode(mode)).at("protect", &source)?;
        // First the seal: who writes while it is read breaks it. Without one it is read at each use.
        let _ = seal::set(&source);
        let (digest, bytes) = hash_file(&source)?;
        self.place_object(&source, &digest)?;
        Ok((digest, bytes))
    }

    /// Makes a protected file the object of its digest.
    fn place_object(&self, source: &Path, digest: &Digest) -> Result<()> {
        let object = self.object(digest);
        let folder = object.parent().unwrap_or(self.root());
        let own = fs::symlink_metadata(source).at("look at", source)?;
        if let Some(old) = self.kept(&object, digest, own.len()) {
            protect(&object, 0o444 | ((own.mode() | old.mode()) & 0o111))?;
            files::remove(source)?;
        } else if let Err(error) = fs::rename(source, &object) {
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error).at("store", &object);
            }
            fs::create_dir_all(folder).at("create", folder)?;
            fs::rename(source, &object).at("store", &object)?;
        }
        self.pending().push(object);
        Ok(())
    }

    /// Moves a file of ours, whose content was found to have that digest, into the store.
    pub(super) fn adopt(&self, source: &Path, digest: &Digest, executable: bool) -> Result<()> {
        let mode = if executable { 0o555 } else { 0o444 };
        fs::set_permissions(source, Permissions::from_mode(mode)).at("protect", source)?;
        let _ = seal::set(source);
        self.place_object(source, digest)
    }

    /// The object of that digest, if it is there and whole. It is never replaced: it may be flushed,
    /// and the records that need it with it, while the new file would be lost with the power. One
    /// that is damaged is replaced, which mends it.
    fn kept(&self, object: &Path, digest: &Digest, bytes: u64) -> Option<Metadata> {
        let old = fs::symlink_metadata(object).ok()?;
        let whole = || hash_file(object).is_ok_and(|(found, _)| found == *digest);
        (old.is_file() && old.len() == bytes && whole()).then_some(old)
    }

    fn store_manifest(&self, manifest: &Manifest) -> Result<()> {
        let (digest, text) = (manifest.digest(), manifest.text());
        let object = self.object(&digest);
        if self.kept(&object, &digest, text.len() as u64).is_none() {
            files::publish_unflushed(&object, text.as_bytes())?;
            let _ = seal::set(&object);
        }
        self.pending().push(object.clone());
        protect(&object, 0o444)?;
        self.link_tree(manifest)
    }

    /// Makes the folder of a manifest, whose objects are there; it is flushed later.
    pub(crate) fn link_tree(&self, manifest: &Manifest) -> Result<()> {
        let copies = self.link_all(manifest)?;
        self.pending().extend(copies);
        Ok(())
    }

    /// Makes the folder of a manifest of hard links, and mends one that is damaged. On file systems
    /// without hard links its files are copies.
    /// Gives back the copies, which are not flushed.
    fn link_all(&self, manifest: &Manifest) -> Result<Vec<PathBuf>> {
        let (root, mut copies) = (self.tree(&manifest.digest()), Vec::new());
        fs::create_dir_all(&root).at("create", &root)?;
        for entry in &manifest.entries {
            let object = self.object(&entry.digest);
            let path = root.join(&entry.path);
            if same_file(&path, &object) || self.kept(&path, &entry.digest, entry.bytes).is_some() {
                continue;
            }
            let folder = path.parent().unwrap_or(&root);
            fs::create_dir_all(folder).at("create", folder)?;
            let temporary = folder.join(format!(".{}.tmp", files::unique()));
            fs::hard_link(&object, &temporary)
                .or_else(|_| self.copy(&object, &temporary))
                .and_then(|()| fs::rename(&temporary, &path))
                .at("link", &path)?;
            if !same_file(&path, &object) {
                copies.push(path);
            }
        }
        Ok(copies)
    }

    fn copy(&self, object: &Path, copy: &Path) -> std::io::Result<()> {
        let copied = fs::copy(object, copy).map(|_| {
            // Without a seal it is read at each use.
            let _ = seal::set(copy);
        });
        copied.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(copy);
        })
    }

    /// Where an output is.
    pub fn output(&self, output: &StoredOutput) -> PathBuf {
        if output.directory { self.tree(&output.digest) } else { self.object(&output.digest) }
    }

    /// Whether an output is there and nobody wrote into it since it was stored. Its content is read only where that cannot be seen.
    pub fn is_sound(&self, output: &StoredOutput) -> bool {
        if !output.directory {
            return self.is_intact(&self.object(&output.digest), &output.digest, output.bytes);
        }
        let Some(manifest) = self.manifest(&output.digest) else { return false };
        let root = self.tree(&output.digest);
        self.are_intact(&manifest, |entry| root.join(&entry.path))
    }

    /// The same of an object.
    pub(super) fn holds(&self, digest: &Digest, bytes: u64) -> bool {
        self.is_intact(&self.object(digest), digest, bytes)
    }

    fn is_intact(&self, path: &Path, digest: &Digest, bytes: u64) -> bool {
        let there = fs::symlink_metadata(path).ok();
        let there = there.filter(|file| file.is_file() && file.len() == bytes);
        there.is_some_and(|file| {
            seal::is_unbroken(&file) || seal::reads_as(path, digest, self.writable)
        })
    }

    fn are_intact(&self, manifest: &Manifest, place: impl Fn(&Entry) -> PathBuf) -> bool {
        let mut unsealed = Vec::new();
        for entry in &manifest.entries {
            let path = place(entry);
            match fs::symlink_metadata(&path) {
                Ok(file) if !file.is_file() || file.len() != entry.bytes => return false,
                Ok(file) if seal::is_unbroken(&file) => {}
                Ok(_) => unsealed.push((path, &entry.digest)),
                Err(_) => return false,
            }
        }
        let reads =
            |(path, digest): &(PathBuf, &Digest)| seal::reads_as(path, digest, self.writable);
        // A pool of threads costs more than a few files take.
        if unsealed.len() > 1 { unsealed.par_iter().all(reads) } else { unsealed.iter().all(reads) }
    }

    /// Removes what of an output is damaged, so that its producer runs again.
    pub fn discard(&self, output: &StoredOutput) -> Result<()> {
        let mut parts = vec![(self.object(&output.digest), output.digest, output.bytes)];
        if output.directory {
            let Some(manifest) = self.manifest(&output.digest) else {
                return files::remove(&self.object(&output.digest));
            };
            let root = self.tree(&output.digest);
            let each = manifest.entries.iter().flat_map(|entry| {
                let places = [root.join(&entry.path), self.object(&entry.digest)];
                places.map(|path| (path, entry.digest, entry.bytes))
            });
            parts = each.collect();
        }
        for (path, digest, bytes) in parts {
            if !self.is_intact(&path, &digest, bytes) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether an output is there, with the size that it had. Its content is not read.
    pub fn has(&self, output: &StoredOutput) -> bool {
        let sized = |path: &Path, bytes| {
            fs::symlink_metadata(path)
                .is_ok_and(|file: Metadata| file.is_file() && file.len() == bytes)
        };
        if !output.directory {
            return sized(&self.object(&output.digest), output.bytes);
        }
        let Some(manifest) = self.manifest(&output.digest) else { return false };
        let root = self.tree(&output.digest);
        manifest.entries.iter().all(|entry| sized(&root.join(&entry.path), entry.bytes))
    }

    /// Makes the folder of an output anew from its objects, if those are there: a loss of power may
    /// take the names in it, and who removes one of them has lost nothing. Says whether it is there now.
    pub(super) fn mend(&self, output: &StoredOutput) -> Result<bool> {
        let manifest = output.directory.then(|| self.manifest(&output.digest)).flatten();
        let Some(manifest) = manifest else { return Ok(false) };
        if !self.are_intact(&manifest, |entry| self.object(&entry.digest)) {
            return Ok(false);
        }
        // The record may be flushed already: what it needs must not come to less.
        self.link_all(&manifest)?.iter().try_for_each(|copy| files::flush(copy))?;
        Ok(self.has(output))
    }

    /// The manifest of that digest, if it is there and whole.
    pub fn manifest(&self, digest: &Digest) -> Option<Manifest> {
        let text = fs::read_to_string(self.object(digest)).ok()?;
        Manifest::parse(&text).filter(|_| Digest::of(text.as_bytes()) == *digest)
    }
}

/// Gives an object its mode. One that another user of a shared cache stored can be changed by that user alone: it is good as it is, if it can be read
/// (and executed) as it should.
fn protect(object: &Path, mode: u32) -> Result<()> {
    let now = fs::symlink_metadata(object).at("look at", object)?.mode() & 0o777;
    if now == mode {
        return Ok(());
    }
    match fs::set_permissions(object, Permissions::from_mode(mode)) {
        Err(error)
            if error.kind() == std::io::ErrorKind::PermissionDenied && now & mode == mode =>
        {
            Ok(())
        }
        set => set.at("protect", object),
    }
}

/// Whether two paths are links to the same file.
pub(super) fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok()
    };
    identity(one).is_some_and(|found| Some(found) == identity(other))
}

/// Whether any process has the file open for writing, or mapped so: a lease for reading is granted
/// only where none has (fcntl(2), `F_SETLEASE`). File systems without leases cannot tell, nor can those of a server: NFS 4 and SMB grant a lease only
/// where the server has delegated the file to this machine, and refuse it in the same words.
fn written_by_others(file: &File) -> bool {
    if network::is_remote(file) {
        return false;
    }
    let lease = |kind: i32| {
        // SAFETY: fcntl on a descriptor that `file` keeps open; no memory is passed.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // A process that was just killed or started holds its files for another moment.
    for _ in 0..20 {
        match lease(libc::F_RDLCK) {
            Ok(()) => {
                // Closing the file would end the lease too.
                let _ = lease(libc::F_UNLCK);
                return false;
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return false,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::stages::contract::PortType;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        fs::create_dir_all(cache.place("scratch")).unwrap();
        (folder, cache)
    }

    fn output(stored: Stored) -> StoredOutput {
        StoredOutput {
            digest: stored.digest,
            kind: PortType::File,
            file: "file".to_owned(),
            directory: stored.directory,
            bytes: stored.bytes,
        }
    }

    #[test]
    fn a_file_moves_in_read_only_and_equal_ones_are_one() {
        let (_folder, cache) = cache();
        let source = cache.place("scratch/a");
        for _ in 0..2 {
            fs::write(&source, "content").unwrap();
            let stored = cache.store(&source).unwrap();
            assert_eq!(stored.digest, Digest::of(b"content"));
            assert!(!source.exists());
            let object = fs::metadata(cache.output(&output(stored))).unwrap();
            assert_eq!((object.mode() & 0o777, object.len(), object.nlink()), (0o444, 7, 1));
        }
    }

    #[test]
    fn a_folder_is_there_until_a_file_of_it_is_missing_and_can_be_stored_again() {
        let (_folder, cache) = cache();
        let source = cache.place("scratch/engine");
        let store = || {
            fs::create_dir_all(source.join("below")).unwrap();
            fs::write(source.join("below/model"), "model").unwrap();
            fs::write(source.join("engine.json"), "{}").unwrap();
            output(cache.store(&source).unwrap())
        };
        let stored = store();
        assert!(stored.directory && stored.bytes == 7 && cache.has(&stored));
        let model = cache.output(&stored).join("below/model");
        assert_eq!(fs::read(&model).unwrap(), b"model");
        assert_eq!(fs::metadata(&model).unwrap().nlink(), 2, "no second copy");
        fs::remove_file(&model).unwrap();
        assert!(!cache.has(&stored));
        assert_eq!(store(), stored);
        assert!(cache.has(&stored));
    }

    #[test]
    fn a_users_file_behind_a_link_stays_the_users() {
        let (folder, cache) = cache();
        let users = folder.path().join("users");
        fs::write(&users, "content").unwrap();
        fs::hard_link(&users, cache.place("scratch/hard")).unwrap();
        std::os::unix::fs::symlink(&users, cache.place("scratch/soft")).unwrap();
        for name in ["scratch/hard", "scratch/soft"] {
            let stored = output(cache.store(&cache.place(name)).unwrap());
            fs::write(&users, "changed").unwrap();
            assert_eq!(fs::read(cache.output(&stored)).unwrap(), b"content", "{name}");
            fs::write(&users, "content").unwrap();
        }
    }

    #[test]
    fn what_is_still_being_written_is_refused() {
        let (_folder, cache) = cache();
        let source = cache.place("scratch/a");
        let mut writer = File::create(&source).unwrap();
        writer.write_all(b"first").unwrap();
        let error = cache.store(&source).unwrap_err();
        assert!(matches!(error, CacheError::StillWritten { .. }), "{error}");
        drop(writer);
        cache.store(&source).unwrap();
    }
}
