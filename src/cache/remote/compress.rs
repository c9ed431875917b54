//! Compression on the way to the remote, and its undoing, held to the expected size and digest.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::layout::{Encoding, SMALL};
use crate::cache::Digest;
use crate::cache::error::At;

/// Quick, and nearly as small as slower levels for tensors.
const LEVEL: i32 = 3;

/// Largest window that is undone, as a power of two: 8 MiB. [`LEVEL`] writes 2 MiB; a frame that
/// wants more memory is none of ours.
const WINDOW_LOG: u32 = 23;

/// Files up to this size are packed in memory.
const IN_MEMORY: u64 = 4 << 20;

/// An object as it is sent.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) encoding: Encoding,
    pub(super) bytes: u64,
    pub(super) content: Content,
}

/// Where the bytes of a packed object are.
#[derive(Debug)]
pub(super) enum Content {
    /// In memory.
    Memory(Bytes),
    /// In a file: the object itself, or a packed copy that has no name.
    File(File),
}

/// Packs an object of `bytes` bytes; it must have the digest that it is sent under, so that damage
/// does not spread.
pub(super) fn pack(
    object: &Path,
    digest: &Digest,
    bytes: u64,
    folder: &Path,
) -> Result<Packed, Failure> {
    let mut file = File::open(object).at("read", object)?;
    let damaged = || Failure::Wrong(format!("{} is damaged in this cache", object.display()));
    if bytes <= IN_MEMORY {
        let mut content = Vec::with_capacity(bytes as usize);
        (&file).take(bytes + 1).read_to_end(&mut content).at("read", object)?;
        if content.len() as u64 != bytes || Digest::of(&content) != *digest {
            return Err(damaged());
        }
        if bytes >= SMALL {
            let packed = zstd::bulk::compress(&content, LEVEL).at("compress", object)?;
            if pays(packed.len() as u64, bytes) {
                return Ok(in_memory(packed, Encoding::Zstd));
            }
        }
        return Ok(in_memory(content, Encoding::Plain));
    }
    let packs = probe(&mut file, bytes).at("read", object)?;
    let mut hash = Sha256::new();
    let mut packed = None;
    if packs {
        let out = tempfile::tempfile_in(folder).at("create a file in", folder)?;
        let mut encoder = zstd::Encoder::new(out, LEVEL).at("write in", folder)?;
        encoder.set_pledged_src_size(Some(bytes)).at("write in", folder)?;
        let give = |chunk: &[u8]| {
            hash.update(chunk);
            encoder.write_all(chunk)
        };
        copy(&mut file, bytes, give).at("compress", object)?;
        let mut out = encoder.finish().at("write in", folder)?;
        let length = out.seek(SeekFrom::End(0)).at("write in", folder)?;
        packed = Some((out, length));
    } else {
        let give = |chunk: &[u8]| {
            hash.update(chunk);
            Ok(())
        };
        copy(&mut file, bytes, give).at("read", object)?;
    }
    if Digest::from_bytes(hash.finalize().into()) != *digest {
        return Err(damaged());
    }
    Ok(match packed {
        Some((out, length)) if pays(length, bytes) => {
            Packed { encoding: Encoding::Zstd, bytes: length, content: Content::File(out) }
        }
        _ => Packed { encoding: Encoding::Plain, bytes, content: Content::File(file) },
    })
}

fn in_memory(content: Vec<u8>, encoding: Encoding) -> Packed {
    let bytes = content.len() as u64;
    Packed { encoding, bytes, content: Content::Memory(content.into()) }
}

/// Whether compression is worth its undoing.
fn pays(packed: u64, bytes: u64) -> bool {
    packed <= bytes - bytes / 32
}

/// Whether three samples of a large file can be compressed.
fn probe(file: &mut File, bytes: u64) -> std::io::Result<bool> {
    const SAMPLE: u64 = 256 << 10;
    let mut sample = Vec::new();
    for start in [0, bytes / 2, bytes.saturating_sub(SAMPLE)] {
        file.seek(SeekFrom::Start(start))?;
        file.take(SAMPLE).read_to_end(&mut sample)?;
    }
    file.rewind()?;
    let packed = zstd::bulk::compress(&sample, LEVEL)?;
    Ok(pays(packed.len() as u64, sample.len() as u64))
}

/// Gives `bytes` bytes of a file away in pieces; fewer if it ends before.
fn copy(
    file: impl Read,
    bytes: u64,
    mut give: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<u64> {
    let mut file = file.take(bytes);
    let mut buffer = vec![0; 1 << 18];
    let mut copied = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => {
                give(&buffer[..read])?;
                copied += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The size that an object must have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    /// Exactly so many bytes.
    Exactly(u64),
    /// So many at most: a manifest's size is not known before.
    AtMost(u64),
}

impl Size {
    pub(super) fn most(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::AtMost(bytes) => bytes,
        }
    }

    fn fits(self, bytes: u64) -> bool {
        match self {
            Self::Exactly(exactly) => bytes == exactly,
            Self::AtMost(most) => bytes <= most,
        }
    }
}

/// Undoes the compression of `stored` into `target`, which must not be there yet. Nothing beyond the
/// expected size is written.
///
/// # Errors
///
/// [`Failure::Wrong`] for a content of another size or digest.
pub(super) fn unpack(
    stored: &File,
    encoding: Encoding,
    target: &Path,
    digest: &Digest,
    size: Size,
) -> Result<(), Failure> {
    let wrong = |reason: String| Failure::Wrong(format!("object {}: {reason}", digest.short()));
    let mut input = stored;
    input.rewind().at("read", target)?;
    let mut out = File::options().write(true).create_new(true).open(target).at("create", target)?;
    let mut hash = Sha256::new();
    let mut full = None;
    let mut give = |chunk: &[u8]| {
        hash.update(chunk);
        out.write_all(chunk).map_err(|error| {
            // The disk's error must not pass for the content's.
            full = Some(error);
            std::io::ErrorKind::Other.into()
        })
    };
    let limit = size.most().saturating_add(1);
    let copied = match encoding {
        Encoding::Plain => copy(input, limit, &mut give),
        Encoding::Zstd => zstd::Decoder::new(input).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG)?;
            copy(decoder.single_frame(), limit, &mut give)
        }),
    };
    if let Some(error) = full {
        return Err(error).at("write", target).map_err(Failure::from);
    }
    let bytes = copied.map_err(|error| wrong(format!("its compression is damaged ({error})")))?;
    if !size.fits(bytes) {
        let more = if bytes > size.most() { "more" } else { "fewer" };
        return Err(wrong(format!("it has {more} than the {} bytes expected", size.most())));
    }
    let found = Digest::from_bytes(hash.finalize().into());
    if found != *digest {
        return Err(wrong(format!("its content has digest {}", found.short())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not compress.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    fn stored(packed: Packed, folder: &Path) -> File {
        match packed.content {
            Content::Memory(bytes) => {
                let path = folder.join("stored");
                std::fs::write(&path, bytes).unwrap();
                File::open(path).unwrap()
            }
            Content::File(file) => file,
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_noise_stays_plain() {
        let folder = tempfile::tempdir().unwrap();
        let large = IN_MEMORY as usize + 5;
        for (content, encoding) in [
            (Vec::new(), Encoding::Plain),
            (b"short".to_vec(), Encoding::Plain),
            (vec![7; 4000], Encoding::Zstd),
            (noise(4000), Encoding::Plain),
            (vec![7; large], Encoding::Zstd),
            (noise(large), Encoding::Plain),
        ] {
            let object = folder.path().join("object");
            std::fs::write(&object, &content).unwrap();
            let (digest, bytes) = (Digest::of(&content), content.len() as u64);
            let packed = pack(&object, &digest, bytes, folder.path()).unwrap();
            assert_eq!(packed.encoding, encoding);
            assert!(packed.bytes <= encoding.most(bytes));
            let target = folder.path().join("target");
            let file = stored(packed, folder.path());
            unpack(&file, encoding, &target, &digest, Size::Exactly(bytes)).unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), content);
            std::fs::remove_file(&target).unwrap();
        }
    }

    #[test]
    fn a_damaged_object_is_not_packed() {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("object");
        for content in [noise(4000), noise(IN_MEMORY as usize + 5)] {
            std::fs::write(&object, &content).unwrap();
            let (other, bytes) = (Digest::of(b"other"), content.len() as u64);
            let failure = pack(&object, &other, bytes, folder.path()).unwrap_err();
            assert!(matches!(failure, Failure::Wrong(_)), "{failure:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_bomb_is_given_up_at_the_expected_size() {
        let folder = tempfile::tempdir().unwrap();
        let zeros = vec![0; 8 << 20];
        let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
        std::fs::write(folder.path().join("bomb"), &bomb).unwrap();
        let target = folder.path().join("target");
        let digest = Digest::of(&zeros);
        let file = File::open(folder.path().join("bomb")).unwrap();
        let failure = unpack(&file, Encoding::Zstd, &target, &digest, Size::Exactly(1000));
        let Err(Failure::Wrong(reason)) = failure else { panic!("{failure:?}") };
        assert!(reason.ends_with("it has more than the 1000 bytes expected"), "{reason}");
        assert_eq!(std::fs::metadata(&target).unwrap().len(), 1001);
    }

    #[test]
    fn a_frame_that_wants_much_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide");
        let mut encoder = zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&noise(1000)).unwrap();
        encoder.finish().unwrap();
        let digest = Digest::of(&noise(1000));
        let target = folder.path().join("target");
        let file = File::open(&path).unwrap();
        let failure = unpack(&file, Encoding::Zstd, &target, &digest, Size::Exactly(1000));
        assert!(matches!(failure, Err(Failure::Wrong(_))), "{failure:?}");
    }
}
