//! Two machines share results through a remote.

use std::os::unix::fs::PermissionsExt;

use qpipe::cache::Lookup;
use qpipe::cache::remote::RemoteSpec;
use qpipe::config::RemoteMode;

use super::machine::{Machine, bucket, noise, spec};
use super::s3::{S3, SECRET};

/// One machine pushes all kinds of outputs, another pulls them.
pub fn share(remote: &RemoteSpec) -> (Machine, Machine) {
    let (one, two) = (Machine::new(remote), Machine::new(remote));
    let (large, text) = (noise(12 << 20), "a line\n".repeat(10_000));
    let files: &[(&str, &[u8])] = &[
        ("large", &large),
        ("text", text.as_bytes()),
        ("empty", b""),
        ("tool.sh", b"#!/bin/sh\n"),
        ("model/below/weights", text.as_bytes()),
        ("model/config", b"{}"),
    ];
    let record = one.result(1, files);
    let key = record.key.digest();
    assert_eq!(two.pull(&key), None, "nothing is there yet");
    let pushed = one.push(&record).unwrap();
    // Two outputs have the same content; the manifest is an object as well.
    assert_eq!((pushed.objects, one.warnings()), (6, vec![]));
    assert!(pushed.bytes < large.len() as u64 + 2000, "{} bytes were sent", pushed.bytes);
    let total = files.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
    let (done, of) = one.progress().unwrap();
    assert!(done == of && of > total - text.len() as u64, "{done} of {of}");

    assert_eq!(two.pull(&key).as_ref(), Some(&record));
    assert_eq!(two.warnings(), [""; 0]);
    for (name, content) in files {
        assert!(two.read(&record, name) == *content, "{name}");
    }
    let tool = two.cache.output(&record.outputs["tool.sh"]);
    assert_eq!(std::fs::metadata(tool).unwrap().permissions().mode() & 0o777, 0o555);
    assert!(matches!(two.cache.lookup(&key).unwrap(), Lookup::Hit(found) if *found == record));
    let left = std::fs::read_dir(two.cache.place("remote/partial")).unwrap().count();
    assert_eq!(left, 0, "partial files");

    let pushed = two.push(&record).unwrap();
    assert_eq!((pushed.objects, pushed.bytes), (0, 0), "all was there");
    (one, two)
}

#[test]
fn machines_share_results_through_s3() {
    let server = S3::start();
    share(&bucket(server.address));
    let requests = server.requests();
    let parts = requests.iter().filter(|it| it.contains("partNumber=")).count();
    assert_eq!(parts, 3, "{requests:#?}");
    assert!(server.path("team/v1/actions").is_dir());
}

#[test]
fn machines_share_results_through_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/shared");
    share(&spec(path.to_str().unwrap(), &[]));
    let folder = tempfile::tempdir().unwrap();
    share(&spec(&format!("file://{}", folder.path().display()), &[]));
}

#[test]
fn only_what_is_missing_is_sent_and_loaded() {
    let server = S3::start();
    let (one, two) = (Machine::new(&bucket(server.address)), Machine::new(&bucket(server.address)));
    let (same, other) = (noise(9000), noise(8000));
    let first = one.result(1, &[("same", &same), ("small", b"1")]);
    one.push(&first).unwrap();
    two.pull(&first.key.digest()).unwrap();
    let second = one.result(2, &[("same", &same), ("other", &other)]);
    server.requests();
    let pushed = one.push(&second).unwrap();
    assert_eq!((pushed.objects, pushed.bytes), (1, 8000));
    assert_eq!(server.requests().iter().filter(|it| it.starts_with("PUT")).count(), 2);
    two.pull(&second.key.digest()).unwrap();
    // The record; the other object, first as if it were compressed.
    assert_eq!(server.requests().len(), 3);
    assert_eq!(two.read(&second, "same"), same);
}

#[test]
fn the_first_record_of_a_key_stays() {
    let server = S3::start();
    let (one, two) = (Machine::new(&bucket(server.address)), Machine::new(&bucket(server.address)));
    let first = one.result(1, &[("out", b"one")]);
    let second = two.result(1, &[("out", b"two")]);
    one.push(&first).unwrap();
    two.push(&second).unwrap();
    let three = Machine::new(&bucket(server.address));
    assert_eq!(three.pull(&first.key.digest()), Some(first));
}

#[test]
fn a_read_only_remote_is_only_read() {
    let server = S3::start();
    let one = Machine::new(&bucket(server.address));
    let record = one.result(1, &[("out", b"one"), ("folder/a", b"a")]);
    one.push(&record).unwrap();
    server.requests();
    let mut read_only = bucket(server.address);
    read_only.mode = RemoteMode::ReadOnly;
    let two = Machine::new(&read_only);
    assert_eq!(two.pull(&record.key.digest()).as_ref(), Some(&record));
    let own = two.result(2, &[("out", b"two")]);
    assert_eq!(two.push(&own), None);
    let requests = server.requests();
    let read = |line: &String| line.starts_with("GET") || line.starts_with("HEAD");
    assert!(!requests.is_empty() && requests.iter().all(read), "{requests:#?}");
    assert_eq!(two.warnings(), [""; 0]);
}

#[test]
fn a_wrong_secret_is_refused_and_not_shown() {
    let server = S3::start();
    let mut wrong = bucket(server.address);
    let secret = "another-secret-of-mine";
    wrong.environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), secret.to_owned());
    let one = Machine::new(&wrong);
    let record = one.result(1, &[("out", b"one")]);
    assert_eq!(one.pull(&record.key.digest()), None);
    assert_eq!(one.push(&record), None);
    let warnings = one.warnings();
    assert_eq!(warnings.len(), 1, "told once: {warnings:?}");
    let warning = &warnings[0];
    let start = "the remote cache s3://bucket/team does not accept the credentials (403 Forbidden";
    assert!(warning.starts_with(start), "{warning}");
    assert!(warning.ends_with("; going on without it"), "{warning}");
    let shown = format!("{warning} {:?} {wrong:?}", one.remote);
    assert!(!shown.contains(secret) && !shown.contains(SECRET), "{shown}");
    assert!(one.remote.is_off());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_remote_that_cannot_be_reached_costs_one_warning() {
    // A port that was free a moment ago; TLS is set up as well.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{free}/x"), format!("https://{free}/x")] {
        let one = Machine::new(&spec(&url, &[("QPIPE_REMOTE_TOKEN", "geheim")]));
        let record = one.result(1, &[("out", b"one")]);
        assert_eq!(one.pull(&record.key.digest()), None);
        assert_eq!(one.push(&record), None);
        let warnings = one.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("Connection refused"), "{warnings:?}");
    }
}

#[test]
fn settings_that_cannot_work_are_told_at_the_first_use() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = spec(folder.path().join("nothing").to_str().unwrap(), &[]);
    missing.mode = RemoteMode::ReadOnly;
    let plain = spec("http://192.0.2.1/x", &[("QPIPE_REMOTE_TOKEN", "geheim")]);
    for (remote, part) in [(missing, "cannot be used"), (plain, "would travel unencrypted")] {
        let one = Machine::new(&remote);
        assert_eq!(one.warnings(), [""; 0]);
        assert_eq!(one.pull(&qpipe::cache::Digest::of(b"key")), None);
        let warnings = one.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}");
    }
}
