//! Fuzz target: the journal.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Journal, Line, Trust};
use crate::cache::journal_line::{checksum, is_whole};
use crate::cache::{Digest, fuzzing};

/// A journal as it is, and with the checksums of its lines set right.
///
/// # Panics
///
/// Where a damaged line is believed, a new one is lost, or a collection changes what is known.
pub fn journal(bytes: &[u8]) {
    check(bytes);
    check(&mended(bytes));
}

/// The lines with right checksums, so that what stands behind them is reached.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (content, end) = line.split_at(line.len() - usize::from(line.ends_with(b"\n")));
        match (content.first(), content.get(11..)) {
            (Some(&kind), Some(rest)) => {
                text.extend([kind, b'\t']);
                text.extend(format!("{:08x}\t", checksum(kind, rest)).as_bytes());
                text.extend(rest);
            }
            _ => text.extend(content),
        }
        text.extend(end);
    }
    text
}

/// What can be believed of a journal.
type Known = BTreeMap<Digest, (String, Trust)>;

fn known(journal: &Journal) -> Known {
    let mut known = Known::new();
    for (key, _) in journal.keys() {
        if let Some(Ok((json, trust))) = journal.json(&key) {
            known.insert(key, (json.to_owned(), trust));
        }
    }
    known
}

fn open(path: &Path) -> Journal {
    let mut journal = Journal::new(path.to_owned());
    journal.refresh().expect("it can be read");
    journal
}

fn check(bytes: &[u8]) {
    let path = fuzzing::file("journal", bytes);
    let mut journal = open(&path);
    for (place, line) in
        journal.records.values().map(|place| (place, &journal.text[place.start..place.end]))
    {
        let believed = journal.at(place).is_ok();
        assert!(!believed || is_whole(line), "a damaged line is believed");
    }
    let before = known(&journal);
    let key = Digest::of(bytes);
    let line = Line::Record { key: &key, label: "p/a\tb\nc", json: "{}" };
    journal
        .append(&[line, Line::Flushed { number: journal.written() + 1 }])
        .expect("there is room");
    // Whoever comes later sees the same as who wrote it.
    let read = known(&open(&path));
    assert_eq!(read, known(&journal));
    assert_eq!(read.get(&key), Some(&("{}".to_owned(), Trust::Flushed)), "a new line is lost");
    // A line without its end is read once something stands behind it.
    let whole = bytes.is_empty() || bytes.ends_with(b"\n");
    for (key, found) in before.into_iter().filter(|_| whole) {
        assert_eq!(read.get(&key), Some(&found), "a line changes another's record");
    }
    let last = journal.last("p/a\tb\nc");
    assert_eq!(last, Some(key));
    journal.compact(|_| true).expect("there is room");
    let mut compact = open(&path);
    assert_eq!(known(&compact), read, "a collection changes what is known");
    assert_eq!(compact.last("p/a\tb\nc"), last);
    let damaged = compact.damaged().expect("it can be read");
    assert!(damaged.is_empty(), "a collection keeps what is damaged");
}
