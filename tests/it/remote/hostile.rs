//! A remote that is damaged, or that lies.

use std::path::{Path, PathBuf};

use qpipe::cache::{ActionRecord, Digest, Entry, Manifest, StoredOutput};
use qpipe::stages::contract::PortType;

use super::machine::{Machine, bucket, noise, record};
use super::s3::S3;

fn action(server: &S3, key: &Digest) -> PathBuf {
    server.path(&format!("team/v1/actions/{key}.json"))
}

fn object(server: &S3, digest: &Digest, end: &str) -> PathBuf {
    let hex = digest.hex();
    server.path(&format!("team/v1/objects/{}/{hex}{end}", &hex[..2]))
}

fn put(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Puts a record into the bucket as a liar would: with a true digest of the envelope.
fn forge(server: &S3, record: &ActionRecord, key: &Digest) {
    let content = serde_json::json!({ "record": record }).to_string();
    let sha256 = Digest::of(content.as_bytes());
    let envelope = serde_json::json!({ "format": 1, "sha256": sha256, "content": content });
    put(&action(server, key), envelope.to_string().as_bytes());
}

fn output(digest: Digest, directory: bool, bytes: u64) -> StoredOutput {
    StoredOutput { digest, kind: PortType::File, file: "out".to_owned(), directory, bytes }
}

/// A pull that must come to nothing, with one warning that says why.
fn refused(machine: &Machine, key: &Digest, part: &str) {
    assert_eq!(machine.pull(key), None);
    let warnings = machine.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}, not {part}");
}

#[test]
fn a_flipped_bit_is_never_used_and_the_next_push_mends_it() {
    for (content, end) in [(noise(9000), ""), (vec![7; 9000], ".zst"), (b"x".to_vec(), "")] {
        let server = S3::start();
        let one = Machine::new(&bucket(server.address));
        let record = one.result(1, &[("out", &content)]);
        let key = record.key.digest();
        one.push(&record).unwrap();
        let path = object(&server, &record.outputs["out"].digest, end);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        put(&path, &bytes);
        let two = Machine::new(&bucket(server.address));
        refused(&two, &key, "the remote's result of p/a: object");
        // The stage ran instead.
        let made = two.result(1, &[("out", &content)]);
        assert_eq!(two.push(&made).unwrap().objects, 1);
        let three = Machine::new(&bucket(server.address));
        assert!(three.pull(&key).is_some(), "{:?}", three.warnings());
        assert!(three.read(&record, "out") == content);
    }
}

/// One push mends all of them, not one after the other.
#[test]
fn several_damaged_objects_are_found_together() {
    let server = S3::start();
    let one = Machine::new(&bucket(server.address));
    let contents: Vec<Vec<u8>> = (0..5_u8).map(|number| vec![number; 20]).collect();
    let names = ["a", "b", "c", "d", "e"];
    let files: Vec<(&str, &[u8])> =
        names.iter().zip(&contents).map(|(name, content)| (*name, &content[..])).collect();
    let record = one.result(1, &files);
    one.push(&record).unwrap();
    for output in record.outputs.values().take(4) {
        put(&object(&server, &output.digest, ""), &[9; 20]);
    }
    let two = Machine::new(&bucket(server.address));
    refused(&two, &record.key.digest(), "the remote's result of p/a: object");
    let made = two.result(1, &files);
    assert_eq!(two.push(&made).unwrap().objects, 4);
    let three = Machine::new(&bucket(server.address));
    assert!(three.pull(&record.key.digest()).is_some(), "{:?}", three.warnings());
}

#[test]
fn an_object_that_is_gone_is_a_miss_and_the_next_push_mends_it() {
    let server = S3::start();
    let one = Machine::new(&bucket(server.address));
    let record = one.result(1, &[("out/a", b"a"), ("out/b", b"b")]);
    let key = record.key.digest();
    one.push(&record).unwrap();
    std::fs::remove_file(object(&server, &Digest::of(b"b"), "")).unwrap();
    let two = Machine::new(&bucket(server.address));
    refused(&two, &key, "is not there");
    let made = two.result(1, &[("out/a", b"a"), ("out/b", b"b")]);
    two.push(&made).unwrap();
    let three = Machine::new(&bucket(server.address));
    assert_eq!(three.pull(&key), Some(made), "the record was replaced too");
}

#[test]
fn a_record_of_another_key_is_never_used() {
    let server = S3::start();
    let one = Machine::new(&bucket(server.address));
    let (good, other) = (one.result(1, &[("out", b"good")]), one.result(2, &[("out", b"other")]));
    one.push(&other).unwrap();
    let (key, path) = (good.key.digest(), action(&server, &other.key.digest()));
    put(&action(&server, &key), &std::fs::read(path).unwrap());
    let two = Machine::new(&bucket(server.address));
    refused(&two, &key, "it belongs to another key");
    two.push(&two.result(1, &[("out", b"good")])).unwrap();
    let three = Machine::new(&bucket(server.address));
    assert!(three.pull(&key).is_some());
}

#[test]
fn records_that_are_none_are_misses() {
    let server = S3::start();
    let key = Digest::of(b"key");
    for (content, part) in [
        (b"{".to_vec(), "it is not readable"),
        (Vec::new(), "it is not readable"),
        (vec![b'['; 1 << 20], "it is not readable"),
        (vec![b' '; (4 << 20) + 1], "it has more than 4194304 bytes"),
    ] {
        put(&action(&server, &key), &content);
        refused(&Machine::new(&bucket(server.address)), &key, part);
    }
}

#[test]
fn a_bomb_is_given_up() {
    let server = S3::start();
    let zeros = vec![0; 8 << 20];
    let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
    let digest = Digest::of(&zeros);
    let outputs = [("out".to_owned(), output(digest, false, 100_000))];
    let record = record(1, outputs.into());
    let key = record.key.digest();
    forge(&server, &record, &key);
    put(&object(&server, &digest, ".zst"), &bomb);
    let two = Machine::new(&bucket(server.address));
    refused(&two, &key, "it has more than the 100000 bytes expected");
    // One that is large on the wire is not even loaded.
    put(&object(&server, &digest, ".zst"), &noise(1 << 20));
    let two = Machine::new(&bucket(server.address));
    refused(&two, &key, "has 1048576 bytes, at most ");
    let left = std::fs::read_dir(two.cache.place("remote/partial")).unwrap().count();
    assert_eq!(left, 0, "partial files");
}

#[test]
fn what_does_not_fit_on_the_disk_is_not_begun() {
    let server = S3::start();
    let digest = Digest::of(b"x");
    let record = record(1, [("out".to_owned(), output(digest, false, u64::MAX / 2))].into());
    forge(&server, &record, &record.key.digest());
    put(&object(&server, &digest, ".zst"), b"x");
    let two = Machine::new(&bucket(server.address));
    refused(&two, &record.key.digest(), "it needs 9223372036854775807 bytes, the disk has ");
}

#[test]
fn paths_do_not_leave_their_folder() {
    let server = S3::start();
    let digest = Digest::of(b"evil");
    put(&object(&server, &digest, ""), b"evil");
    let entry = |path: &str| Entry { path: path.to_owned(), digest, bytes: 4 };
    for (seed, paths) in [
        &["../evil"][..],
        &["a/../../evil"],
        &["/tmp/evil"],
        &["a", "a/b"],
        &["evil\0"],
        &["a//evil"],
    ]
    .iter()
    .enumerate()
    {
        let manifest = Manifest { entries: paths.iter().map(|path| entry(path)).collect() };
        put(&object(&server, &manifest.digest(), ""), manifest.text().as_bytes());
        let out = output(manifest.digest(), true, manifest.bytes());
        let record = record(seed as u64, [("out".to_owned(), out)].into());
        forge(&server, &record, &record.key.digest());
        let two = Machine::new(&bucket(server.address));
        refused(&two, &record.key.digest(), "the manifest ");
        let beside = two.cache.place("trees").parent().unwrap().parent().unwrap().to_path_buf();
        assert_eq!(std::fs::read_dir(beside).unwrap().count(), 1, "{paths:?}");
    }
    for file in ["../out", "/out", "a/../out", ""] {
        let out = StoredOutput { file: file.to_owned(), ..output(digest, false, 4) };
        let record = record(9, [("out".to_owned(), out)].into());
        forge(&server, &record, &record.key.digest());
        let two = Machine::new(&bucket(server.address));
        refused(&two, &record.key.digest(), "is not in the stage's folder");
    }
}

#[test]
fn a_folder_whose_size_is_a_lie_is_a_miss() {
    let server = S3::start();
    let digest = Digest::of(b"x");
    put(&object(&server, &digest, ""), b"x");
    let entry = |path: &str, bytes| Entry { path: path.to_owned(), digest, bytes };
    for (seed, (entries, bytes, part)) in [
        (vec![entry("a", 1)], 2, "has another size than the record says"),
        (vec![entry("a", 1), entry("b", 2)], 3, "is said to have two sizes"),
        (vec![entry("a", 2)], 2, "it has fewer than the 2 bytes expected"),
    ]
    .into_iter()
    .enumerate()
    {
        let manifest = Manifest { entries };
        put(&object(&server, &manifest.digest(), ""), manifest.text().as_bytes());
        let out = output(manifest.digest(), true, bytes);
        let record = record(seed as u64, [("out".to_owned(), out)].into());
        forge(&server, &record, &record.key.digest());
        refused(&Machine::new(&bucket(server.address)), &record.key.digest(), part);
    }
}

#[test]
fn damage_of_ones_own_is_not_pushed() {
    use std::os::unix::fs::PermissionsExt;
    let server = S3::start();
    let one = Machine::new(&bucket(server.address));
    let record = one.result(1, &[("out", b"good")]);
    let path = one.cache.output(&record.outputs["out"]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, b"gook").unwrap();
    assert_eq!(one.push(&record), None);
    let warnings = one.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("is damaged in this cache"),
        "{warnings:?}"
    );
    assert!(!action(&server, &record.key.digest()).exists());
}
