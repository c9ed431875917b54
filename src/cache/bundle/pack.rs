//! Writing a bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::contents::{Content, Contents, MANIFEST, Object, is_packable};
use super::error::{BundleError, OrSay, Result};
use crate::cache::tree::hash_file;
use crate::cache::{ActionRecord, Cache, Digest, files};

/// zstd's own default: tensors hardly shrink further at higher ones.
const LEVEL: i32 = 3;

/// What goes into a bundle.
#[derive(Debug)]
pub struct Packing {
    contents: Contents,
    /// Where the contents of files are.
    sources: BTreeMap<Digest, PathBuf>,
    records: BTreeMap<Digest, ActionRecord>,
}

/// What went into a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Files of the user's.
    pub files: usize,
    /// Records of stages.
    pub records: usize,
    /// Objects.
    pub objects: usize,
    /// Bytes of all, before they are compressed.
    pub bytes: u64,
    /// Size of the bundle.
    pub packed: u64,
}

impl Packing {
    /// Of the pipeline file that belongs at the path `pipeline`.
    pub fn new(pipeline: &str) -> Self {
        Self {
            contents: Contents::new(pipeline),
            sources: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    /// Adds a file of the user's, which belongs at the path `name`; `false` if no file may stand
    /// there.
    pub fn file(&mut self, name: &str, source: &Path) -> Result<bool> {
        if !is_packable(name) {
            return Ok(false);
        }
        let mode = source.metadata().or_say("look at", source)?.permissions().mode();
        let (digest, bytes) = hash_file(source)?;
        let content = Content { digest, bytes, executable: mode & 0o111 != 0 };
        self.contents.files.insert(name.to_owned(), content);
        self.sources.insert(digest, source.to_path_buf());
        Ok(true)
    }

    /// Adds what a stage came to.
    pub fn record(&mut self, cache: &Cache, record: ActionRecord) -> Result<()> {
        for output in record.outputs.values() {
            self.object(cache, &output.digest)?;
            let manifest = cache.manifest(&output.digest).filter(|_| output.directory);
            for entry in manifest.into_iter().flat_map(|manifest| manifest.entries) {
                self.object(cache, &entry.digest)?;
            }
        }
        self.records.insert(record.key.digest(), record);
        Ok(())
    }

    fn object(&mut self, cache: &Cache, digest: &Digest) -> Result<()> {
        let path = cache.object(digest);
        let metadata = path.metadata().or_say("look at", &path)?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.contents.objects.insert(*digest, Object { bytes: metadata.len(), executable });
        Ok(())
    }

    /// Writes the bundle. The same contents give the same bytes.
    pub fn write(mut self, cache: &Cache, path: &Path) -> Result<Packed> {
        let mut records = BTreeMap::new();
        for (key, record) in &self.records {
            let json = serde_json::to_vec(record).expect("a record serialises to JSON");
            let (digest, bytes) = (Digest::of(&json), json.len() as u64);
            self.contents.records.insert(*key, Content { digest, bytes, executable: false });
            records.insert(digest, json);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = path.file_name().unwrap_or_default().display();
        let temporary = format!(".{name}.{}.tmp", files::unique());
        let temporary = folder.unwrap_or(Path::new(".")).join(temporary);
        let written = self
            .write_to(cache, &temporary, path, &records)
            .and_then(|()| std::fs::rename(&temporary, path).or_say("write", path));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
        Ok(Packed {
            files: self.contents.files.len(),
            records: self.contents.records.len(),
            objects: self.contents.objects.len(),
            bytes: self.contents.bytes().unwrap_or(u64::MAX),
            packed: path.metadata().or_say("look at", path)?.len(),
        })
    }

    /// Writes it into `temporary`; errors name `path`, which it becomes.
    fn write_to(
        &self,
        cache: &Cache,
        temporary: &Path,
        path: &Path,
        records: &BTreeMap<Digest, Vec<u8>>,
    ) -> Result<()> {
        let file = File::create(temporary).or_say("create", path)?;
        let mut encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).or_say("write", path)?;
        encoder.include_checksum(true).or_say("write", path)?;
        let mut archive = Builder::new(encoder);
        let manifest = self.contents.json();
        let length = manifest.len() as u64;
        append(&mut archive, MANIFEST, length, manifest.as_slice()).or_say("write", path)?;
        for member in self.contents.members() {
            if let Some(json) = records.get(&member.digest).filter(|_| member.is_record()) {
                let json = json.as_slice();
                append(&mut archive, &member.name, member.bytes, json).or_say("write", path)?;
                continue;
            }
            let source = match self.sources.get(&member.digest).filter(|_| member.is_file()) {
                Some(source) => source.clone(),
                None => cache.object(&member.digest),
            };
            let changed = |what| BundleError::Changed { path: source.clone(), what };
            let mut reader = Hashing::new(File::open(&source).or_say("read", &source)?);
            let added =
                append(&mut archive, &member.name, member.bytes, (&mut reader).take(member.bytes));
            let (action, at) =
                if reader.failed { ("read", source.as_path()) } else { ("write", path) };
            added.or_say(action, at)?;
            let more = reader.read(&mut [0]).or_say("read", &source)? > 0;
            if more || reader.bytes != member.bytes || reader.digest() != member.digest {
                let why = "is damaged: its content is not what its digest says";
                return Err(changed(if member.is_file() { "changed meanwhile" } else { why }));
            }
        }
        let file = archive.into_inner().and_then(zstd::Encoder::finish).or_say("write", path)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).or_say("write", path)
    }
}

/// Adds a member: no time, no owner, so that the same content gives the same bytes.
fn append(
    archive: &mut Builder<impl Write>,
    name: &str,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    archive.append(&header, content)
}

/// A reader that digests what it reads.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    /// How much was read.
    pub bytes: u64,
    /// Whether it could not be read.
    pub failed: bool,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0, failed: false }
    }

    /// Digest of what was read.
    pub fn digest(self) -> Digest {
        Digest::from_bytes(self.hash.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer).inspect_err(|error| {
            self.failed |= error.kind() != io::ErrorKind::Interrupted;
        })?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}
