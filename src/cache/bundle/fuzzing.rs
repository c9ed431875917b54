//! Fuzz target: bundles, which may come from anyone.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use tar::{Builder, Header};

use super::contents::{Content, Contents, MANIFEST, Object};
use super::{BundleError, Unpacked, unpack};
use crate::cache::{ActionRecord, Cache, Digest, fuzzing};

/// By the first byte, the file of a bundle, its archive, or what is in it: parts behind bytes of value 0,
/// which get their digests, so that what stands behind those is reached.
///
/// # Panics
///
/// Where something is written outside of the folder, or left there of a bundle that is refused; and
/// where the cache holds what is not what its digest says.
pub fn bundle(bytes: &[u8]) {
    let _ = unpacked(bytes);
}

fn unpacked(bytes: &[u8]) -> Option<Result<Unpacked, BundleError>> {
    let (form, content) = bytes.split_first()?;
    let file = match form % 4 {
        0 => content.to_vec(),
        1 => packed(content),
        _ => packed(&archive(content)),
    };
    let root = fuzzing::place("bundle");
    let _ = fs::remove_dir_all(&root);
    let [there, cache] = ["there", "cache"].map(|name| root.join(name));
    let bundle = fuzzing::file("bundle.qpipe", &file);
    // With a folder to unpack into, which holds a link that leads out of it; or without.
    let old = form % 8 >= 4;
    if old {
        fs::create_dir_all(&there).expect("there is room for a folder");
        symlink(root.join("outside"), there.join("link")).expect("there is room for a link");
        fs::write(there.join("old"), "old").expect("there is room for a file");
    } else {
        fs::create_dir_all(&root).expect("there is room for a folder");
    }
    let before = names(&there);
    let open = |_: &Path| Cache::open(&cache);
    let force = form % 16 >= 8;
    let result = unpack(&bundle, &there, open, force);
    for name in names(&root) {
        assert!(["there", "cache"].contains(&name.as_str()), "{name} is written outside");
    }
    match &result {
        Ok(unpacked) => {
            assert!(unpacked.pipeline.starts_with(&there) && unpacked.pipeline.is_file());
            let found = Cache::open(&cache).and_then(|cache| cache.verify());
            let found = found.expect("the cache is read");
            assert!(found.faults.is_empty(), "{found:?}");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(old == there.exists() && names(&there) == before, "something is left: {error}");
        }
    }
    assert!(!old || force || fs::read(there.join("old")).is_ok_and(|content| content == b"old"));
    Some(result)
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it is there").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn packed(archive: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("there is memory");
    encoder
        .include_checksum(true)
        .and_then(|()| encoder.write_all(archive))
        .expect("it is in memory");
    encoder.finish().expect("it is in memory")
}

/// An archive of parts: the pipeline's path; behind the letter `f`, or `x` for a program, a file's path,
/// a line's end and its content; behind `r` a record; behind `o` or `p` an object.
fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut parts = bytes.split(|byte| *byte == 0);
    let pipeline = parts.next().unwrap_or_default();
    let mut contents = Contents::new(&String::from_utf8_lossy(pipeline));
    let mut known = Vec::new();
    for part in parts {
        let Some((kind, rest)) = part.split_first() else { continue };
        let executable = matches!(kind, b'x' | b'p');
        let content = match kind {
            b'f' | b'x' => {
                let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                let content = rest.get(end + 1..).unwrap_or_default();
                let path = String::from_utf8_lossy(&rest[..end]).into_owned();
                let (digest, bytes) = (Digest::of(content), content.len() as u64);
                contents.files.insert(path, Content { digest, bytes, executable });
                content
            }
            b'r' => {
                let key = match serde_json::from_slice::<ActionRecord>(rest) {
                    Ok(record) => record.key.digest(),
                    Err(_) => Digest::of(b"no record"),
                };
                let (digest, bytes) = (Digest::of(rest), rest.len() as u64);
                contents.records.insert(key, Content { digest, bytes, executable });
                rest
            }
            _ => {
                contents
                    .objects
                    .insert(Digest::of(rest), Object { bytes: rest.len() as u64, executable });
                rest
            }
        };
        known.push((Digest::of(content), content));
    }
    let mut archive = Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_path(name).expect("it is short");
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).expect("it is in memory");
    };
    add(MANIFEST, &contents.json());
    for member in contents.members() {
        let content = known.iter().find(|(digest, _)| *digest == member.digest);
        add(&member.name, content.expect("it was put in").1);
    }
    archive.into_inner().expect("it is in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_has_bundles_that_are_whole_and_others() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/bundle");
        let result = |name: &str| unpacked(&fs::read(corpus.join(name)).unwrap()).unwrap();
        for (name, files, records) in
            [("whole", 3, 1), ("folder", 1, 1), ("below", 4, 0), ("tar", 1, 0), ("file", 1, 0)]
        {
            let found = result(name).unwrap();
            assert_eq!((found.files, found.records), (files, records), "{name}");
        }
        for (name, why) in [
            ("into", "is there already, and is not what the bundle holds"),
            ("outside", "is not inside of the folder"),
            ("git", "is one of git's or qpipe's own"),
            ("link", "is no plain file"),
            ("more", "holds more than its manifest says"),
        ] {
            let error = result(name).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }
}
