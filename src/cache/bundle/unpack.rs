//! Reading a bundle, which may come from anyone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Entries, EntryType};

use super::contents::{Contents, MANIFEST, MANIFEST_MAX, Member, What};
use super::error::{BundleError, OrSay, Result};
use super::pack::Hashing;
use super::place::{Placing, room};
use crate::cache::{
    ActionRecord, Cache, CacheError, Claim, Claimed, Digest, LockFile, Lookup, files,
};

/// Largest window of zstd that is undone, as a power of two: 8 MiB. What we write has 2 MiB; a frame
/// that wants more memory is none of ours.
const WINDOW_LOG: u32 = 23;

/// What came out of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// Files that were written.
    pub files: usize,
    /// Records that the cache did not have.
    pub records: usize,
    /// Records that it had already.
    pub known: usize,
}

/// Puts the files of a bundle into `folder` and its results into the cache that `open`
/// gives for the pipeline file's folder.
///
/// Nothing is kept of a bundle that is not whole: files come last, a folder that this made is removed
/// again. Files that stand there and are others are replaced only with `force`.
///
/// # Errors
///
/// A bundle that is not whole or leads elsewhere, files that are in the way, no room.
pub fn unpack(
    bundle: &Path,
    folder: &Path,
    open: impl FnOnce(&Path) -> Result<Cache, CacheError>,
    force: bool,
) -> Result<Unpacked> {
    let missing = || BundleError::Missing { path: bundle.to_path_buf() };
    let file = match File::open(bundle) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Ok(_) if bundle.is_dir() => return Err(missing()),
        opened => opened.or_say("read", bundle)?,
    };
    let folder = std::path::absolute(folder).or_say("find", folder)?;
    let mut placing = Placing::new(&folder, force);
    let reading = Reading { path: bundle };
    let result = reading.all(file, &mut placing, open);
    if result.is_err() {
        placing.undo();
    }
    result
}

/// A bundle that is read.
struct Reading<'b> {
    path: &'b Path,
}

type Decoder = zstd::Decoder<'static, BufReader<File>>;

impl Reading<'_> {
    fn broken(&self, reason: impl Into<String>) -> BundleError {
        BundleError::Broken { path: self.path.to_path_buf(), reason: reason.into() }
    }

    fn cut(&self, error: &io::Error) -> BundleError {
        self.broken(format!("it is damaged or cut short ({error})"))
    }

    fn all(
        &self,
        file: File,
        placing: &mut Placing,
        open: impl FnOnce(&Path) -> Result<Cache, CacheError>,
    ) -> Result<Unpacked> {
        let mut decoder = Decoder::new(file).or_say("read", self.path)?;
        decoder.window_log_max(WINDOW_LOG).or_say("read", self.path)?;
        let mut archive = Archive::new(decoder);
        // Raw: long names and the like are members as they are, and so refused.
        let mut entries = archive.entries().map_err(|error| self.cut(&error))?.raw(true);
        let json = self.manifest(&mut entries)?;
        let contents = Contents::read(&json).map_err(|reason| self.broken(reason))?;
        placing.check(&contents)?;
        let pipeline = placing.folder().join(&contents.pipeline);
        let beside = pipeline.parent().unwrap_or(placing.folder()).to_path_buf();
        placing.make_folders(&beside)?;
        let cache = open(&beside)?;
        // What comes in is not collected before its records are there.
        let hold = cache.share()?;
        room(cache.root(), contents.bytes().unwrap_or(u64::MAX))?;
        let scratch = Scratch::new(&cache, &Digest::of(&json))?;
        let mut records = BTreeMap::new();
        for member in contents.members() {
            let content = self.member(&mut entries, &member, &scratch)?;
            if let (What::Record(key), Some(json)) = (member.what, content) {
                let record = contents.record(&key, &json).map_err(|reason| self.broken(reason))?;
                records.insert(key, record);
            }
        }
        self.end(entries)?;
        self.rest(archive.into_inner())?;
        let (new, known) = self.keep(&cache, &contents, &scratch, records)?;
        let written = placing.place(&contents, &scratch.folder)?;
        for record in &new {
            cache.record(record)?;
        }
        cache.flush()?;
        drop(hold);
        for lock_file in LockFile::all(&pipeline) {
            cache.register(&lock_file, None)?;
        }
        Ok(Unpacked { pipeline, files: written, records: new.len(), known })
    }

    fn manifest(&self, entries: &mut Entries<'_, Decoder>) -> Result<Vec<u8>> {
        let mut entry = self.next(entries, MANIFEST)?;
        if entry.size() > MANIFEST_MAX {
            return Err(self.broken("its manifest is too large"));
        }
        let mut json = Vec::new();
        entry.read_to_end(&mut json).map_err(|error| self.cut(&error))?;
        Ok(json)
    }

    /// The next member, which must have that name and be a plain file.
    fn next<'e>(
        &self,
        entries: &mut Entries<'e, Decoder>,
        name: &str,
    ) -> Result<tar::Entry<'e, Decoder>> {
        let entry = entries.next().ok_or_else(|| self.broken(format!("{name} is not in it")))?;
        let entry = entry.map_err(|error| self.cut(&error))?;
        if *entry.path_bytes() != *name.as_bytes() {
            return Err(self.broken(format!("something else stands where {name} belongs")));
        }
        if entry.header().entry_type() != EntryType::Regular {
            return Err(self.broken(format!("{name} is no plain file")));
        }
        Ok(entry)
    }

    /// Reads a member and checks it: a record into memory, anything else into the scratch folder.
    fn member(
        &self,
        entries: &mut Entries<'_, Decoder>,
        member: &Member,
        scratch: &Scratch,
    ) -> Result<Option<Vec<u8>>> {
        let Member { name, digest, bytes, .. } = member;
        let entry = self.next(entries, name)?;
        if entry.size() != *bytes {
            return Err(self.broken(format!("{name} has another size than the manifest says")));
        }
        let mut reader = Hashing::new(entry);
        let mut memory = Vec::new();
        if member.is_record() {
            reader.read_to_end(&mut memory).map_err(|error| self.cut(&error))?;
        } else {
            let path = scratch.path(digest);
            let mut file = File::create(&path).or_say("create", &path)?;
            let mut buffer = vec![0; 1 << 17];
            loop {
                let read = reader.read(&mut buffer).map_err(|error| self.cut(&error))?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read]).or_say("write", &path)?;
            }
        }
        if reader.bytes != *bytes || reader.digest() != *digest {
            return Err(self.broken(format!("the content of {name} does not have its digest")));
        }
        Ok(member.is_record().then_some(memory))
    }

    /// Nothing may follow the last member.
    fn end(&self, mut entries: Entries<'_, Decoder>) -> Result<()> {
        match entries.next() {
            None => Ok(()),
            Some(Ok(_)) => Err(self.broken("it holds more than its manifest says")),
            Some(Err(error)) => Err(self.cut(&error)),
        }
    }

    /// Reads to the end, where zstd's own checksum stands; only zeros may come before it.
    fn rest(&self, decoder: Decoder) -> Result<()> {
        const PADDING: u64 = 1 << 16;
        let mut rest = Vec::new();
        let read = decoder.take(PADDING + 1).read_to_end(&mut rest);
        read.map_err(|error| self.cut(&error))?;
        if rest.len() as u64 > PADDING || rest.iter().any(|byte| *byte != 0) {
            return Err(self.broken("it holds more than its manifest says"));
        }
        Ok(())
    }

    /// Moves the objects into the store; gives the records that the cache does not have, and how many
    /// it has.
    fn keep(
        &self,
        cache: &Cache,
        contents: &Contents,
        scratch: &Scratch,
        records: BTreeMap<Digest, ActionRecord>,
    ) -> Result<(Vec<ActionRecord>, usize)> {
        let shared: BTreeSet<&Digest> = contents.files.values().map(|file| &file.digest).collect();
        for (digest, object) in &contents.objects {
            let mut path = scratch.path(digest);
            if shared.contains(digest) {
                // A file has the same content: it is needed once more.
                let copy = path.with_extension("copy");
                std::fs::copy(&path, &copy).or_say("copy", &path)?;
                path = copy;
            }
            cache.adopt(&path, digest, object.executable)?;
        }
        let (mut new, mut known) = (Vec::new(), 0);
        for (key, record) in records {
            for output in record.outputs.values().filter(|output| output.directory) {
                let manifest = cache.manifest(&output.digest);
                let manifest = manifest.filter(|manifest| {
                    let there = |digest| contents.objects.get(digest).map(|object| object.bytes);
                    manifest.bytes() == output.bytes
                        && manifest.entries.iter().all(|it| there(&it.digest) == Some(it.bytes))
                });
                let Some(manifest) = manifest else {
                    let what = format!("a folder of the record {} is not in it", key.short());
                    return Err(self.broken(what));
                };
                cache.link_tree(&manifest)?;
            }
            match cache.lookup(&key)? {
                Lookup::Hit(_) => known += 1,
                Lookup::Miss | Lookup::Damaged(_) => new.push(record),
            }
        }
        Ok((new, known))
    }
}

/// A folder in the cache for what is not checked yet. Its name is that of an action, whose lock is
/// held: what a killed process leaves is removed by the next run.
struct Scratch {
    folder: PathBuf,
    _claim: Claim,
}

impl Scratch {
    fn new(cache: &Cache, key: &Digest) -> Result<Self> {
        let claim = loop {
            match cache.claim(key)? {
                Claimed::Ours(claim) => break claim,
                Claimed::Theirs(pid) => {
                    let path = cache.root().to_path_buf();
                    let pids = pid.into_iter().collect();
                    return Err(CacheError::Busy { path, pids }.into());
                }
                Claimed::Survivors(_) => {}
            }
        };
        let folder = cache.place("scratch").join(format!("{key}.{}", files::unique()));
        std::fs::create_dir_all(&folder).or_say("create", &folder)?;
        Ok(Self { folder, _claim: claim })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is removed by the next run.
        let _ = files::remove(&self.folder);
    }
}
