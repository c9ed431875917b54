//! A server that is lost in the middle of a transfer.

use std::time::Duration;

use super::machine::{Machine, bucket, noise};
use super::proxy::{Proxy, Then, Way};
use super::s3::S3;

/// Three parts; S3 wants 5 MiB at least.
const LARGE: usize = 12 << 20;

#[test]
fn an_upload_that_is_cut_goes_on() {
    let server = S3::start();
    let proxy = Proxy::start(server.address, Way::Up, 7_000_000, Then::Cut);
    let one = Machine::new(&bucket(proxy.address));
    let large = noise(LARGE);
    let record = one.result(1, &[("large", &large)]);
    assert_eq!(one.push(&record).map(|pushed| pushed.bytes), Some(LARGE as u64));
    assert!(proxy.broke());
    assert_eq!(one.warnings(), [""; 0]);
    let again = proxy.carried() - LARGE;
    assert!(again < 8_000_000, "what was not cut was sent again: {again} bytes");
    let requests = server.requests();
    let begun = requests.iter().filter(|it| it.starts_with("POST") && it.contains("?uploads"));
    assert_eq!(begun.count(), 1, "the same upload went on: {requests:#?}");
    let two = Machine::new(&bucket(server.address));
    two.pull(&record.key.digest()).unwrap();
    assert!(two.read(&record, "large") == large);
}

#[test]
fn an_upload_that_is_lost_leaves_no_record_and_the_run_goes_on() {
    let server = S3::start();
    let proxy = Proxy::start(server.address, Way::Up, 7_000_000, Then::Refuse);
    let one = Machine::new(&bucket(proxy.address));
    let large = noise(LARGE);
    let record = one.result(1, &[("large", &large), ("small", b"1")]);
    assert_eq!(one.push(&record), None);
    assert!(proxy.broke() && one.remote.is_off());
    let warnings = one.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("failed too often"), "{warnings:?}");
    assert!(!server.path("team/v1/actions").exists());
    // The next run does it.
    let one = one.again(&bucket(server.address));
    one.push(&record).unwrap();
    let two = Machine::new(&bucket(server.address));
    two.pull(&record.key.digest()).unwrap();
    assert!(two.read(&record, "large") == large);
}

/// An object that is loaded in several pieces.
const SIZE: usize = 4 << 20;

/// A bucket with such a result.
fn filled(server: &S3) -> (qpipe::cache::ActionRecord, Vec<u8>) {
    let one = Machine::new(&bucket(server.address));
    let large = noise(SIZE);
    let record = one.result(1, &[("large", &large)]);
    one.push(&record).unwrap();
    server.requests();
    (record, large)
}

/// Where the requests for ranges began.
fn ranges(server: &S3) -> Vec<usize> {
    let begin = |line: &String| line.split_once("bytes=")?.1.strip_suffix('-')?.parse().ok();
    server.requests().iter().filter_map(begin).collect()
}

#[test]
fn a_download_that_is_cut_or_silent_goes_on_where_it_was() {
    for then in [Then::Cut, Then::Stall] {
        let server = S3::start();
        let (record, large) = filled(&server);
        let proxy = Proxy::start(server.address, Way::Down, 2_500_000, then);
        let mut remote = bucket(proxy.address);
        if then == Then::Stall {
            remote.limits.stall = Duration::from_millis(300);
        }
        let two = Machine::new(&remote);
        two.pull(&record.key.digest()).unwrap();
        assert!(proxy.broke());
        assert!(two.read(&record, "large") == large);
        let ranges = ranges(&server);
        assert!(ranges.len() == 1 && ranges[0] > 1_000_000, "{ranges:?}");
        assert_eq!(two.progress(), Some((SIZE as u64, SIZE as u64)));
    }
}

#[test]
fn a_download_that_is_lost_goes_on_in_the_next_run() {
    let server = S3::start();
    let (record, large) = filled(&server);
    let proxy = Proxy::start(server.address, Way::Down, 2_500_000, Then::Refuse);
    let two = Machine::new(&bucket(proxy.address));
    let key = record.key.digest();
    assert_eq!(two.pull(&key), None);
    assert_eq!(two.warnings().len(), 1);
    assert!(two.remote.is_off());
    assert_eq!(two.pull(&key), None);
    assert_eq!(two.warnings(), [""; 0], "it was told");
    server.requests();
    let two = two.again(&bucket(server.address));
    two.pull(&key).unwrap();
    assert!(two.read(&record, "large") == large);
    let begun = ranges(&server);
    assert!(begun.len() == 1 && begun[0] > 1_000_000, "{begun:?}");
}

/// The partial file of the only object of a result.
fn partial(two: &Machine, record: &qpipe::cache::ActionRecord, end: &str) -> std::path::PathBuf {
    let folder = two.cache.place("remote/partial");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{}{end}", record.outputs["large"].digest))
}

#[test]
fn what_arrived_earlier_may_be_whole_wrong_or_too_long() {
    let server = S3::start();
    let (record, large) = filled(&server);
    let mut long = large.clone();
    long.extend_from_slice(b"more");
    for (arrived, requests) in [(&large[..], 2), (&noise(99_999)[1..], 3), (&long[..], 3)] {
        let two = Machine::new(&bucket(server.address));
        std::fs::write(partial(&two, &record, ""), arrived).unwrap();
        server.requests();
        two.pull(&record.key.digest()).unwrap();
        assert!(two.read(&record, "large") == large);
        assert!(server.requests().len() >= requests);
        assert!(!partial(&two, &record, "").exists());
    }
}
