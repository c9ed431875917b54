//! The files of a bundle on their way into a folder.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::contents::{Content, Contents};
use super::error::{BundleError, OrSay, Result};
use crate::cache::files;
use crate::cache::tree::hash_file;

/// The files of a bundle on their way into a folder.
pub(super) struct Placing<'f> {
    folder: &'f Path,
    force: bool,
    /// Folders and files that were made, in that order.
    made: Vec<PathBuf>,
}

impl<'f> Placing<'f> {
    pub fn new(folder: &'f Path, force: bool) -> Self {
        Self { folder, force, made: Vec::new() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder
    }

    /// Refuses what stands in the way, before anything is written.
    pub fn check(&self, contents: &Contents) -> Result<()> {
        for (name, content) in &contents.files {
            self.is_free(name, content)?;
        }
        Ok(())
    }

    /// Whether a file is to be written; `false` if it is there as it should be.
    fn is_free(&self, name: &str, content: &Content) -> Result<bool> {
        // A link on the way could lead anywhere.
        for (at, _) in name.match_indices('/') {
            let folder = self.folder.join(&name[..at]);
            if fs::symlink_metadata(&folder).is_ok_and(|found| !found.is_dir()) {
                return Err(BundleError::There { path: folder });
            }
        }
        let path = self.folder.join(name);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).or_say("look at", &path),
        };
        let executable = found.permissions().mode() & 0o111 != 0;
        let same = found.is_file()
            && found.len() == content.bytes
            && executable == content.executable
            && hash_file(&path)?.0 == content.digest;
        if same {
            return Ok(false);
        }
        if self.force && !found.is_dir() { Ok(true) } else { Err(BundleError::There { path }) }
    }

    /// Makes a folder and those above it, and remembers which.
    pub fn make_folders(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder).or_say("create", folder)?;
            self.made.push(folder.to_path_buf());
        }
        Ok(())
    }

    /// Writes the files whose contents lie in `scratch` under their digests; says how many.
    pub fn place(&mut self, contents: &Contents, scratch: &Path) -> Result<usize> {
        let mut written = 0;
        for (name, content) in &contents.files {
            if !self.is_free(name, content)? {
                continue;
            }
            let path = self.folder.join(name);
            let folder = path.parent().unwrap_or(self.folder);
            self.make_folders(folder)?;
            let mode = if content.executable { 0o755 } else { 0o644 };
            let temporary = folder.join(format!(".{}.tmp", files::unique()));
            let put = fs::copy(scratch.join(content.digest.hex()), &temporary)
                .and_then(|_| fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)))
                .and_then(|()| self.publish(&temporary, &path));
            if put.is_err() {
                // The first error is the one to tell.
                let _ = fs::remove_file(&temporary);
            }
            match put {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(BundleError::There { path });
                }
                put => put.or_say("write", &path)?,
            }
            written += 1;
        }
        Ok(written)
    }

    fn publish(&mut self, temporary: &Path, path: &Path) -> io::Result<()> {
        if self.force {
            let new = fs::symlink_metadata(path).is_err();
            fs::rename(temporary, path)?;
            self.made.extend(new.then(|| path.to_path_buf()));
            return Ok(());
        }
        // Unlike a renaming, a link never replaces what came meanwhile.
        match fs::hard_link(temporary, path) {
            Ok(()) => fs::remove_file(temporary)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => fs::rename(temporary, path)?,
        }
        self.made.push(path.to_path_buf());
        Ok(())
    }

    /// Removes what was made.
    pub fn undo(&mut self) {
        // What cannot be removed stays; the error that led here is the one to tell. A folder that
        // was made here holds nothing of the user's.
        for path in self.made.drain(..).rev() {
            let _ = files::remove(&path);
        }
    }
}

/// Refuses what does not fit on the disk.
pub(super) fn room(folder: &Path, needed: u64) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return Ok(()) };
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and `found` has room for what is written.
    let result = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    if result != 0 {
        // The disk itself will say what there is to say.
        return Ok(());
    }
    // SAFETY: statvfs(2) wrote it all, as it succeeded.
    let found = unsafe { found.assume_init() };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if needed > free {
        return Err(BundleError::Room { path: folder.to_path_buf(), needed, free });
    }
    Ok(())
}
