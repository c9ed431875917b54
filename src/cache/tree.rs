//! Folders as lists of files: the form in which a folder has a digest.

use std::fs::{self, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::error::{At, CacheError, Result};
use super::{Digest, files, network};
use crate::stages::inside::is_inside;

/// A file below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the folder, with `/`.
    pub path: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Its size, bytes.
    pub bytes: u64,
}

/// The files below a folder, sorted by path. Empty folders, times and permissions do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The files.
    pub entries: Vec<Entry>,
}

/// First line of a manifest; raised with any change of its form.
const HEADER: &str = "qpipe tree 1";

impl Manifest {
    /// Its text: a header, then a line a file: digest, bytes, path.
    pub fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for entry in &self.entries {
            text.push_str(&format!("{} {} {}\n", entry.digest, entry.bytes, entry.path));
        }
        text
    }

    /// Digest of the folder: that of the text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// Reads the text back; `None` if it is none, or if a path in it leaves the folder.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next() != Some(HEADER) {
            return None;
        }
        let entries = lines.map(|line| {
            let (digest, rest) = line.split_once(' ')?;
            let (bytes, path) = rest.split_once(' ')?;
            let digest = Digest::try_from(digest.to_owned()).ok()?;
            // A folder has one manifest, and so one digest: `+7` and `007` are none of ours.
            if bytes.starts_with('+') || (bytes.len() > 1 && bytes.starts_with('0')) {
                return None;
            }
            let inside = is_inside(path);
            inside.then_some(Entry { path: path.to_owned(), digest, bytes: bytes.parse().ok()? })
        });
        let entries: Vec<Entry> = entries.collect::<Option<_>>()?;
        // Sums do not overflow, and no path comes twice.
        entries.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.bytes))?;
        entries.is_sorted_by(|a, b| a.path < b.path).then_some(Self { entries })
    }
}

/// A file that [`walk`] found.
pub(crate) struct Found {
    /// Path below the folder, with `/`.
    pub relative: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its metadata; links are followed.
    pub metadata: Metadata,
}

/// The files below a folder: relative path, path and bytes of each; a file is there alone, with an
/// empty relative path. Links are followed.
///
/// # Errors
///
/// What cannot be digested either.
pub fn files_below(root: &Path) -> Result<Vec<(String, PathBuf, u64)>> {
    let metadata = fs::metadata(root).at("look at", root)?;
    if !metadata.is_dir() {
        return Ok(vec![(String::new(), root.to_path_buf(), metadata.len())]);
    }
    let found = walk(root)?.into_iter();
    Ok(found.map(|found| (found.relative, found.path, found.metadata.len())).collect())
}

/// Refuses what is neither a file nor a folder: to open a pipe is to wait for who writes into it.
pub(crate) fn regular(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_dir() || metadata.is_file() {
        return Ok(());
    }
    Err(CacheError::NotStorable {
        path: path.to_path_buf(),
        reason: "it is neither a file nor a folder".to_owned(),
        help: "remove the pipe, socket or device".to_owned(),
    })
}

/// All files below `root`, sorted by relative path; links are followed.
pub(crate) fn walk(root: &Path) -> Result<Vec<Found>> {
    let metadata = fs::metadata(root).at("look at", root)?;
    let mut found = walk_below(root, "", &[(metadata.dev(), metadata.ino())])?;
    found.sort_unstable_by(|a, b| a.relative.cmp(&b.relative));
    Ok(found)
}

/// Folders with fewer names than this are not worth several threads.
const FEW: usize = 256;

/// `above`: this folder and those that it lies in, by device and inode.
fn walk_below(folder: &Path, prefix: &str, above: &[(u64, u64)]) -> Result<Vec<Found>> {
    let look = |path: PathBuf| -> Result<Vec<Found>> {
        let refuse = |reason: &str, help: &str| {
            let (reason, help) = (reason.to_owned(), help.to_owned());
            CacheError::NotStorable { path: path.clone(), reason, help }
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| !name.contains('\n')) else {
            let reason = "its name is not UTF-8, or has a line break in it";
            return Err(refuse(reason, "rename the file"));
        };
        let relative = format!("{prefix}{name}");
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => {
                let help = "remove the symbolic link, or bring back what it leads to";
                return Err(refuse("the link leads nowhere", help));
            }
            metadata => metadata.at("look at", &path)?,
        };
        if metadata.is_dir() {
            let identity = (metadata.dev(), metadata.ino());
            if above.contains(&identity) {
                let help = "remove the symbolic link that leads back to a folder above it";
                return Err(refuse("the folder contains itself", help));
            }
            walk_below(&path, &format!("{relative}/"), &[above, &[identity]].concat())
        } else {
            regular(&path, &metadata)?;
            let metadata = network::current(&path, metadata);
            Ok(vec![Found { relative, path, metadata }])
        }
    };
    let names = files::list(folder)?;
    let few = names.len() < if above.len() > 1 { FEW } else { 8 };
    let found: Vec<Vec<Found>> = if few {
        names.into_iter().map(look).collect::<Result<_>>()?
    } else {
        names.into_par_iter().map(look).collect::<Result<_>>()?
    };
    Ok(found.into_iter().flatten().collect())
}

/// Digest and size of a file's content.
pub(crate) fn hash_file(path: &Path) -> Result<(Digest, u64)> {
    let mut file = fs::File::open(path).at("read", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).at("read", path),
        };
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok((Digest::from_bytes(hash.finalize().into()), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_refuses_what_it_is_not() {
        let entry = |path: &str| Entry { path: path.to_owned(), digest: Digest::of(b""), bytes: 7 };
        let manifest = Manifest { entries: vec![entry("a b/c"), entry("d")] };
        assert_eq!(Manifest::parse(&manifest.text()), Some(manifest.clone()));
        assert_eq!(manifest.bytes(), 14);
        let text = manifest.text();
        assert_eq!(Manifest::parse(&text[..text.len() - 3]), None);
        assert_eq!(Manifest::parse("qpipe tree 2\n"), None);
        assert_eq!(Manifest::parse(&text.replace("a b/c", "a/../../c")), None);
        assert_eq!(Manifest::parse(&text.replacen(' ', "x", 3)), None);
        for paths in [&["../a"][..], &["/a"], &["a", "a"], &["b", "a"], &["a//b"], &[""]] {
            let manifest = Manifest { entries: paths.iter().map(|path| entry(path)).collect() };
            assert_eq!(Manifest::parse(&manifest.text()), None, "{paths:?}");
        }
        for bytes in ["+7", "07"] {
            assert_eq!(Manifest::parse(&text.replace(" 7 ", &format!(" {bytes} "))), None);
        }
        let huge = text.replace(" 7 ", &format!(" {} ", u64::MAX));
        assert_eq!(Manifest::parse(&huge), None);
    }

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        let names: Vec<String> =
            walk(folder.path()).unwrap().into_iter().map(|found| found.relative).collect();
        assert_eq!(names, ["a/file", "b/file"]);
        std::os::unix::fs::symlink("..", folder.path().join("a/up")).unwrap();
        let error = walk(folder.path()).err().unwrap().to_string();
        assert!(error.ends_with("cannot be digested: the folder contains itself"), "{error}");
        fs::remove_file(folder.path().join("a/up")).unwrap();
        std::os::unix::fs::symlink("gone", folder.path().join("a/dangling")).unwrap();
        let error = walk(folder.path()).err().unwrap().to_string();
        assert!(
            error.ends_with("a/dangling cannot be digested: the link leads nowhere"),
            "{error}"
        );
    }
}
