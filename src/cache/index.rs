//! The input index: what is known of the user's files, so that they are read once.

pub(crate) mod fuzzing;

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::error::{CacheError, Result};
use super::tree::{Entry, Found, Manifest, hash_file, walk};
use super::{Digest, FileChanges, files, network};
use crate::stages::image_files::is_litter;

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

    /// Of a file whose digest is known but not to be relied on: no file has inode 0.
    fn doubtful(size: u64) -> Self {
        Self { size, modified_ns: 0, changed_ns: 0, inode: 0 }
    }

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
        // The time of modification may be anything: users set it. That of change is the system's; if
        // it lies ahead, the clock was set back, and the same time comes again.
        (now_ns - self.modified_ns).abs() > Self::DOUBT_NS
            && now_ns - self.changed_ns > Self::DOUBT_NS
    }
}

fn now_ns() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// The user's files: size, times and inode → digest.
///
/// There is a file for each folder that is an input, and one for all single files; each is read when
/// it is needed and rewritten at once. Of two runs at the same time the later one's view stays, which
/// costs a digest and never a wrong one.
#[derive(Debug)]
pub struct InputIndex {
    place: PathBuf,
    /// Key: the folder, or nothing for the single files.
    roots: HashMap<PathBuf, Root>,
}

/// What is known of the files below a folder.
#[derive(Debug, Default)]
struct Root {
    /// Sorted by path; that of a single file is absolute, others are relative to the folder.
    entries: Vec<Known>,
    /// Digest of the folder's manifest, if it holds exactly the entries.
    whole: Option<Digest>,
    dirty: bool,
    /// What was known before this process found something else.
    before: Option<Before>,
}

/// What was known of the files below a folder.
#[derive(Debug)]
struct Before {
    entries: Vec<Known>,
    whole: Option<Digest>,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    path: String,
    stamp: Stamp,
    digest: Digest,
}

impl InputIndex {
    /// The index in the folder `place`; what is missing or not readable there is empty.
    pub fn load(place: PathBuf) -> Self {
        Self { place, roots: HashMap::new() }
    }

    /// Digest of a file's content, or of all files below a folder but those that systems leave there.
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
            let mut found = walk(path)?;
            found.retain(|file| !is_litter(&file.path));
            let root = self.root(path);
            return root.folder(found);
        }
        super::tree::regular(path, &metadata)?;
        let relative = path.to_string_lossy().into_owned();
        let metadata = network::current(path, metadata);
        let found = Found { relative, path: path.to_path_buf(), metadata };
        let singles = self.root(Path::new(""));
        Ok(singles.files(&[found])?[0].0)
    }

    /// Digest of several files: of their paths below `folder` and their contents. What is not there
    /// is left out.
    pub fn digest_of_all(&mut self, folder: &Path, paths: &[PathBuf]) -> Result<Digest> {
        let found: Vec<Found> = paths
            .iter()
            .filter_map(|path| {
                let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
                let metadata = network::current(path, metadata);
                let relative = path.to_string_lossy().into_owned();
                Some(Found { relative, path: path.clone(), metadata })
            })
            .collect();
        let digests = self.root(Path::new("")).files(&found)?;
        let mut manifest = Manifest::default();
        for (file, (digest, bytes)) in found.into_iter().zip(digests) {
            let path = file.path.strip_prefix(folder).unwrap_or(&file.path).display().to_string();
            manifest.entries.push(Entry { path, digest, bytes });
        }
        Ok(manifest.digest())
    }

    /// Digest of a file or folder as it was known before this process looked at it.
    pub fn digest_before(&self, path: &Path) -> Option<Digest> {
        if let Some(root) = self.roots.get(path) {
            return root.before.as_ref().map_or(root.whole, |before| before.whole);
        }
        self.roots.get(Path::new(""))?.digest_before(&path.to_string_lossy())
    }

    /// [`Self::digest_of_all`] of files as they were known before this process looked at them.
    pub fn digest_of_all_before(&self, folder: &Path, paths: &[PathBuf]) -> Option<Digest> {
        let singles = self.roots.get(Path::new(""))?;
        let mut manifest = Manifest::default();
        for file in paths {
            let Some(digest) = singles.digest_before(&file.to_string_lossy()) else { continue };
            let path = file.strip_prefix(folder).unwrap_or(file).display().to_string();
            let bytes = singles.size_before(&file.to_string_lossy());
            manifest.entries.push(Entry { path, digest, bytes });
        }
        Some(manifest.digest())
    }

    /// In which files a folder differs from what was known before this process looked at it.
    pub fn difference(&self, folder: &Path) -> FileChanges {
        let mut changes = FileChanges::default();
        if let Some(root) = self.roots.get(folder)
            && let Some(before) = &root.before
        {
            let pairs = |known: &Vec<Known>| -> Vec<(String, Digest)> {
                known.iter().map(|known| (known.path.clone(), known.digest)).collect()
            };
            changes.compare(&pairs(&before.entries), &pairs(&root.entries));
        }
        changes
    }

    /// In which of some single files what is known now differs from what was known before.
    pub fn difference_of_all(&self, folder: &Path, paths: &[PathBuf]) -> FileChanges {
        let mut changes = FileChanges::default();
        let Some(singles) = self.roots.get(Path::new("")) else { return changes };
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for file in paths {
            let name = file.strip_prefix(folder).unwrap_or(file).display().to_string();
            let path = file.to_string_lossy();
            old.extend(singles.digest_before(&path).map(|digest| (name.clone(), digest)));
            let now = singles.position(&path).ok().filter(|_| file.exists());
            new.extend(now.map(|at| (name, singles.entries[at].digest)));
        }
        old.sort();
        new.sort();
        changes.compare(&old, &new);
        changes
    }

    fn root(&mut self, folder: &Path) -> &mut Root {
        if !self.roots.contains_key(folder) {
            let root = Root::load(&file_of(&self.place, folder), folder);
            self.roots.insert(folder.to_path_buf(), root);
        }
        self.roots.entry(folder.to_path_buf()).or_default()
    }

    /// Writes what is new.
    pub fn save(&mut self) -> Result<()> {
        for (folder, root) in &mut self.roots {
            if std::mem::take(&mut root.dirty) {
                let bytes = root.bytes(folder);
                files::publish_unflushed(&file_of(&self.place, folder), &bytes)?;
            }
        }
        Ok(())
    }

    /// Forgets folders and files that are no longer there.
    pub fn prune(place: &Path) -> Result<()> {
        for path in files::list(place)? {
            let Some((folder, mut root)) = Root::read(&path) else {
                files::remove(&path)?;
                continue;
            };
            if !folder.as_os_str().is_empty() {
                if !folder.exists() {
                    files::remove(&path)?;
                }
                continue;
            }
            root.entries.retain(|known| Path::new(&known.path).exists());
            files::publish_unflushed(&path, &root.bytes(&folder))?;
        }
        Ok(())
    }
}

/// Where the index of a folder stands; the single files' for the empty path.
fn file_of(place: &Path, folder: &Path) -> PathBuf {
    match folder.as_os_str().as_encoded_bytes() {
        b"" => place.join("files"),
        bytes => place.join(Digest::of(bytes).short()),
    }
}

impl Root {
    /// Digest of a folder with these files, sorted by path.
    fn folder(&mut self, found: Vec<Found>) -> Result<Digest> {
        let same = |(known, file): (&Known, &Found)| {
            known.path == file.relative && known.stamp == Stamp::of(&file.metadata)
        };
        if let Some(whole) = self.whole
            && self.entries.len() == found.len()
            && self.entries.iter().zip(&found).all(same)
        {
            return Ok(whole);
        }
        self.keep_before();
        let digests = self.files(&found)?;
        let mut manifest = Manifest::default();
        for (file, (digest, bytes)) in found.into_iter().zip(digests) {
            manifest.entries.push(Entry { path: file.relative, digest, bytes });
        }
        let digest = manifest.digest();
        let paths =
            manifest.entries.iter().map(|entry| entry.path.as_str()).collect::<HashSet<_>>();
        self.entries.retain(|known| paths.contains(known.path.as_str()));
        self.whole = (self.entries.len() == manifest.entries.len()).then_some(digest);
        self.dirty = true;
        Ok(digest)
    }

    /// Digests and sizes of files: remembered ones, or read now.
    fn files(&mut self, found: &[Found]) -> Result<Vec<(Digest, u64)>> {
        let known: Vec<Option<Digest>> = found
            .iter()
            .map(|file| {
                let known = &self.entries[self.position(&file.relative).ok()?];
                (known.stamp == Stamp::of(&file.metadata)).then_some(known.digest)
            })
            .collect();
        let now = now_ns();
        let hash = |(file, known): (&Found, &Option<Digest>)| match known {
            Some(digest) => Ok((*digest, file.metadata.len())),
            None => hash_file(&file.path),
        };
        let pairs = found.iter().zip(&known);
        // A pool of threads costs more than a few files take.
        let digests: Vec<(Digest, u64)> =
            if known.iter().filter(|known| known.is_none()).count() > 1 {
                pairs.collect::<Vec<_>>().into_par_iter().map(hash).collect::<Result<_>>()?
            } else {
                pairs.map(hash).collect::<Result<_>>()?
            };
        let mut news = HashMap::new();
        for ((file, known), (digest, bytes)) in found.iter().zip(&known).zip(&digests) {
            if known.is_none() {
                let stamp = Stamp::of(&file.metadata);
                // A size that differs from the one looked up before: it is being written.
                let certain = stamp.certain(now) && stamp.size == *bytes;
                let stamp = if certain { stamp } else { Stamp::doubtful(*bytes) };
                news.insert(file.relative.as_str(), (stamp, *digest));
            }
        }
        self.learn(news);
        Ok(digests)
    }

    fn position(&self, path: &str) -> std::result::Result<usize, usize> {
        self.entries.binary_search_by(|known| known.path.as_str().cmp(path))
    }

    /// Replaces what is known of some files.
    fn learn(&mut self, mut news: HashMap<&str, (Stamp, Digest)>) {
        if news.is_empty() {
            return;
        }
        self.keep_before();
        self.whole = None;
        for known in &mut self.entries {
            if let Some((stamp, digest)) = news.remove(known.path.as_str()) {
                self.dirty |= known.stamp != stamp || known.digest != digest;
                (known.stamp, known.digest) = (stamp, digest);
            }
        }
        if news.is_empty() {
            return;
        }
        self.dirty = true;
        for (path, (stamp, digest)) in news {
            self.entries.push(Known { path: path.to_owned(), stamp, digest });
        }
        self.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }

    /// Keeps what is known now, the first time that it is about to change.
    fn keep_before(&mut self) {
        if self.before.is_none() {
            self.before = Some(Before { entries: self.entries.clone(), whole: self.whole });
        }
    }

    /// Digest of one of the files as it was known before.
    fn digest_before(&self, path: &str) -> Option<Digest> {
        self.known_before(path).map(|known| known.digest)
    }

    /// Its size.
    fn size_before(&self, path: &str) -> u64 {
        self.known_before(path).map_or(0, |known| known.stamp.size)
    }

    fn known_before(&self, path: &str) -> Option<&Known> {
        let entries = self.before.as_ref().map_or(&self.entries, |before| &before.entries);
        let place = entries.binary_search_by(|known| known.path.as_str().cmp(path));
        place.ok().map(|place| &entries[place])
    }

    fn load(path: &Path, folder: &Path) -> Self {
        let read = Self::read(path).filter(|(found, _)| found == folder);
        read.map(|(_, root)| root).unwrap_or_default()
    }

    /// The index in a file, with the folder that it is of.
    fn read(path: &Path) -> Option<(PathBuf, Self)> {
        Self::parse(&files::read(path).ok()??)
    }

    fn parse(bytes: &[u8]) -> Option<(PathBuf, Self)> {
        let body = bytes.strip_prefix(HEADER)?;
        let (sum, body) = body.split_first_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = body;
        let folder = PathBuf::from(take_text(&mut rest)?);
        let whole = match take::<1>(&mut rest)? {
            [0] => None,
            _ => Some(Digest::from_bytes(take(&mut rest)?)),
        };
        let mut root = Self { whole, ..Self::default() };
        while !rest.is_empty() {
            let stamp = Stamp {
                size: u64::from_le_bytes(take(&mut rest)?),
                modified_ns: i128::from_le_bytes(take(&mut rest)?),
                changed_ns: i128::from_le_bytes(take(&mut rest)?),
                inode: u64::from_le_bytes(take(&mut rest)?),
            };
            let digest = Digest::from_bytes(take(&mut rest)?);
            root.entries.push(Known { path: take_text(&mut rest)?, stamp, digest });
        }
        Some((folder, root))
    }

    /// What [`Self::read`] reads.
    fn bytes(&self, folder: &Path) -> Vec<u8> {
        let mut body = Vec::with_capacity(128 * self.entries.len() + 64);
        let text = |text: &str, body: &mut Vec<u8>| {
            body.extend(u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
            body.extend(text.as_bytes());
        };
        text(&folder.to_string_lossy(), &mut body);
        body.push(u8::from(self.whole.is_some()));
        body.extend(self.whole.iter().flat_map(|digest| digest.bytes()));
        for Known { path, stamp, digest } in &self.entries {
            body.extend(stamp.size.to_le_bytes());
            body.extend(stamp.modified_ns.to_le_bytes());
            body.extend(stamp.changed_ns.to_le_bytes());
            body.extend(stamp.inode.to_le_bytes());
            body.extend(digest.bytes());
            text(path, &mut body);
        }
        [HEADER, &crc32fast::hash(&body).to_le_bytes(), &body].concat()
    }
}

/// Start of an index file; raised with any change of its form. A CRC-32 of the rest follows.
const HEADER: &[u8] = b"qpipe index 2\n";

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
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
        let doubtful = |known: &Known| known.stamp.inode == 0;
        assert!(index.roots[&data].entries.iter().all(doubtful), "written a moment ago");
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
    fn who_looks_into_a_folder_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("cat")).unwrap();
        fs::write(folder.path().join("cat/a.png"), "a").unwrap();
        let mut index = InputIndex::load(folder.path().join("index"));
        let digest = |index: &mut InputIndex| index.digest(&folder.path().join("cat")).unwrap();
        let before = digest(&mut index);
        for name in [".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "._a.png", ".gitkeep"] {
            fs::write(folder.path().join("cat").join(name), "seen").unwrap();
        }
        assert_eq!(digest(&mut index), before);
        fs::write(folder.path().join("cat/.hidden"), "a file of the user's").unwrap();
        assert_ne!(digest(&mut index), before);
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
        assert_eq!(again.digest(&path).unwrap(), digest);
        // The remembered digest is what is given: a false one shows.
        again.roots.get_mut(Path::new("")).unwrap().entries[0].digest = Digest::of(b"false");
        assert_eq!(again.digest(&path).unwrap(), Digest::of(b"false"));
        fs::File::open(&path).unwrap().set_modified(hour_ago).unwrap();
        assert_eq!(again.digest(&path).unwrap(), digest);
    }

    #[test]
    fn a_folder_is_remembered_whole_and_a_flipped_bit_makes_it_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        ["a", "b", "c"].iter().for_each(|name| fs::write(data.join(name), name).unwrap());
        std::thread::sleep(Duration::from_millis(2100));
        let place = folder.path().join("index");
        let mut index = InputIndex::load(place.clone());
        let first = index.digest(&data).unwrap();
        index.save().unwrap();
        let mut again = InputIndex::load(place.clone());
        again.root(&data).whole = Some(Digest::of(b"false"));
        assert_eq!(again.digest(&data).unwrap(), Digest::of(b"false"), "nothing is hashed");
        fs::remove_file(data.join("b")).unwrap();
        let second = again.digest(&data).unwrap();
        assert_ne!(second, first);
        again.save().unwrap();
        let file = file_of(&place, &data);
        let mut bytes = fs::read(&file).unwrap();
        assert_eq!(Root::read(&file).unwrap().1.entries.len(), 2);
        bytes[60] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(Root::read(&file).is_none());
        assert_eq!(InputIndex::load(place.clone()).digest(&data).unwrap(), second);
        InputIndex::prune(&place).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_missing_input_is_named() {
        let mut index = InputIndex::load(PathBuf::from("/nowhere/index"));
        let error = index.digest(Path::new("/nowhere/file")).unwrap_err();
        assert_eq!(error.to_string(), "input /nowhere/file does not exist");
    }
}
