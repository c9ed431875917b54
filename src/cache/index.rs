//! The input index: what is known of the user's files, so that they are read once.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::error::{CacheError, Result};
use super::tree::{Entry, Found, Manifest, hash_file, walk};
use super::{Digest, files};

/// What a file looks like from outside: as long as this is the same, so is its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
    inode: u64,
}

impl Stamp {
    /// A file changed again within this time of being read may look the same: clocks of file
    /// systems are coarse.
    const DOUBT_NS: i128 = 2_000_000_000;

    fn of(metadata: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, part: i64| i128::from(seconds) * 1_000_000_000 + i128::from(part);
        Self {
            size: metadata.size(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// Whether a digest taken at `now` may be remembered under this stamp.
    fn certain(&self, now_ns: i128) -> bool {
        let old = |time: i128| (now_ns - time).abs() > Self::DOUBT_NS;
        old(self.modified_ns) && old(self.changed_ns)
    }
}

fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// The user's files: size, times and inode → digest.
///
/// It is one text file, read at once and rewritten at once; of two runs at the same time the later
/// one's view stays, which costs a digest and never a wrong one.
#[derive(Debug)]
pub struct InputIndex {
    path: PathBuf,
    entries: HashMap<PathBuf, (Stamp, Digest)>,
    dirty: bool,
}

/// First line of the index; raised with any change of its form.
const HEADER: &str = "qpipe index 1";

impl InputIndex {
    /// The index in the file `path`; one that is missing or not readable is empty.
    pub fn load(path: PathBuf) -> Self {
        let text =
            files::read(&path).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let mut lines = text.as_deref().unwrap_or_default().split('\n');
        let entries = match lines.next() {
            Some(HEADER) => lines.filter_map(parse_line).collect(),
            _ => HashMap::new(),
        };
        Self { path, entries, dirty: false }
    }

    /// Digest of a file's content, or of all files below a folder.
    ///
    /// # Errors
    ///
    /// What is not there or cannot be read, with its path.
    pub fn digest(&mut self, path: &Path) -> Result<Digest> {
        let metadata = std::fs::metadata(path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                CacheError::InputMissing { path: path.to_path_buf() }
            } else {
                CacheError::Io { action: "look at", path: path.to_path_buf(), source }
            }
        })?;
        if metadata.is_dir() {
            return Ok(self.folder(path)?.digest());
        }
        let found = Found { relative: String::new(), path: path.to_path_buf(), metadata };
        Ok(self.files(vec![found])?.entries[0].digest)
    }

    /// Digest of several files: of their paths below `folder` and their contents. What is not there
    /// is left out.
    pub fn digest_of_all(&mut self, folder: &Path, paths: &[PathBuf]) -> Result<Digest> {
        let found = paths.iter().filter_map(|path| {
            let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
            let relative = path.strip_prefix(folder).unwrap_or(path).display().to_string();
            Some(Found { relative, path: path.clone(), metadata })
        });
        Ok(self.files(found.collect())?.digest())
    }

    fn folder(&mut self, root: &Path) -> Result<Manifest> {
        self.files(walk(root)?)
    }

    fn files(&mut self, found: Vec<Found>) -> Result<Manifest> {
        let known: Vec<Option<Digest>> = found
            .iter()
            .map(|file| {
                let (stamp, digest) = self.entries.get(&file.path)?;
                (*stamp == Stamp::of(&file.metadata)).then_some(*digest)
            })
            .collect();
        let now = now_ns();
        let hash = |(file, known): (&Found, &Option<Digest>)| match known {
            Some(digest) => Ok((*digest, file.metadata.len(), false)),
            None => hash_file(&file.path).map(|(digest, bytes)| (digest, bytes, true)),
        };
        let pairs = found.iter().zip(&known);
        // A pool of threads costs more than a few files take.
        let digests: Vec<_> = if known.iter().filter(|known| known.is_none()).count() > 1 {
            let pairs: Vec<_> = pairs.collect();
            pairs.into_par_iter().map(hash).collect::<Result<_>>()?
        } else {
            pairs.map(hash).collect::<Result<_>>()?
        };
        let mut manifest = Manifest::default();
        for (file, (digest, bytes, new)) in found.into_iter().zip(digests) {
            let stamp = Stamp::of(&file.metadata);
            if new {
                self.dirty |= self.entries.remove(&file.path).is_some();
                // A size that differs from the one looked up before: it is being written.
                if stamp.certain(now) && stamp.size == bytes {
                    self.entries.insert(file.path, (stamp, digest));
                    self.dirty = true;
                }
            }
            manifest.entries.push(Entry { path: file.relative, digest, bytes });
        }
        Ok(manifest)
    }

    /// Writes the index if anything is new in it.
    pub fn save(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        let mut lines: Vec<String> = self.entries.iter().filter_map(line).collect();
        lines.sort();
        files::publish(&self.path, format!("{HEADER}\n{}\n", lines.join("\n")).as_bytes())
    }

    /// Forgets files that are no longer there.
    pub fn prune(&mut self) {
        let before = self.entries.len();
        self.entries.retain(|path, _| path.exists());
        self.dirty |= self.entries.len() != before;
    }
}

fn line((path, (stamp, digest)): (&PathBuf, &(Stamp, Digest))) -> Option<String> {
    let path = path.to_str().filter(|path| !path.contains('\n'))?;
    let Stamp { size, modified_ns, changed_ns, inode } = stamp;
    Some(format!("{digest} {size} {modified_ns} {changed_ns} {inode} {path}"))
}

fn parse_line(line: &str) -> Option<(PathBuf, (Stamp, Digest))> {
    let mut parts = line.splitn(6, ' ');
    let digest = Digest::try_from(parts.next()?.to_owned()).ok()?;
    let stamp = Stamp {
        size: parts.next()?.parse().ok()?,
        modified_ns: parts.next()?.parse().ok()?,
        changed_ns: parts.next()?.parse().ok()?,
        inode: parts.next()?.parse().ok()?,
    };
    Some((PathBuf::from(parts.next()?), (stamp, digest)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fresh_file_is_not_trusted_and_a_folder_is_its_sorted_files() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("b")).unwrap();
        fs::write(data.join("b/1"), "one").unwrap();
        fs::write(data.join("a"), "two").unwrap();
        let mut index = InputIndex::load(folder.path().join("index"));
        let first = index.digest(&data).unwrap();
        assert!(index.entries.is_empty(), "written a moment ago");
        let expected =
            format!("qpipe tree 1\n{} 3 a\n{} 3 b/1\n", Digest::of(b"two"), Digest::of(b"one"));
        assert_eq!(first, Digest::of(expected.as_bytes()));
        // Same size, same time of modification, other content: nothing to see but the change time.
        let time = fs::metadata(data.join("a")).unwrap().modified().unwrap();
        fs::write(data.join("a"), "owt").unwrap();
        fs::File::open(data.join("a")).unwrap().set_modified(time).unwrap();
        assert_ne!(index.digest(&data).unwrap(), first);
    }

    #[test]
    fn an_old_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "content").unwrap();
        std::thread::sleep(Duration::from_millis(2100));
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let mut index = InputIndex::load(folder.path().join("index"));
        let digest = index.digest(&path).unwrap();
        index.save().unwrap();
        let mut again = InputIndex::load(folder.path().join("index"));
        assert_eq!(again.entries.len(), 1);
        // The remembered digest is what is given: a false one shows.
        again.entries.get_mut(&path).unwrap().1 = Digest::of(b"false");
        assert_eq!(again.digest(&path).unwrap(), Digest::of(b"false"));
        fs::File::open(&path).unwrap().set_modified(hour_ago).unwrap();
        assert_eq!(again.digest(&path).unwrap(), digest);
    }

    #[test]
    fn a_missing_input_is_named() {
        let mut index = InputIndex::load(PathBuf::from("/nowhere/index"));
        let error = index.digest(Path::new("/nowhere/file")).unwrap_err();
        assert_eq!(error.to_string(), "input /nowhere/file does not exist");
    }
}
