//! The journal: what is known of actions, a line each, in one append-only file.
//!
//! ```text
//! r CRC KEY TIME WRITER#N LABEL JSON  a record: the action KEY succeeded for stage LABEL
//! u CRC KEY TIME WRITER LABEL         the record of KEY was used for stage LABEL
//! d CRC KEY TIME WRITER               the record of KEY is no longer valid
//! s CRC WRITER#N TIME                 WRITER's records up to its Nth have reached the disk
//! f CRC KEY TIME WRITER               the record of KEY has reached the disk, whoever wrote it
//! ```
//!
//! Fields are separated by tabs. The checksum (CRC-32) covers the rest of the line and its kind, so
//! that a torn or flipped line is passed over and never believed. Lines are appended with one
//! system call each under a lock; any number of runs share the file, and each reads what others
//! have appended since it looked last.
//!
//! Objects are not flushed one by one: a writer flushes in groups and then says so with an `s` line.
//! What it wrote after its last `s` line is believed as long as the machine has not been started
//! anew since; afterwards only when the content of all outputs has been checked ([`Trust`]). Whoever
//! uses a record that its writer has not flushed, as it was killed, flushes it and says so with an
//! `f` line.

pub(crate) mod fuzzing;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{At, Result};
use super::journal_line::{boot, checksum, is_whole, now, numbered, plain, torn};
use super::{Digest, files, flock, network};

pub(crate) use super::journal_line::Line;

/// Whether a record's outputs are known to have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They are.
    Flushed,
    /// They were written since this machine was started: they are there as long as it runs.
    Written,
    /// The machine may have lost power before they were flushed.
    Doubtful,
}

/// A record's place in the journal.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
    writer: u32,
    /// How many of its writer's it is.
    number: u64,
    /// Whether somebody else than its writer has flushed it.
    flushed: bool,
}

/// What the journal says, as far as it has been read.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// The file's content as far as it was read.
    text: Vec<u8>,
    /// The file that was read. As long as it is open, no other file gets its inode's number, by which
    /// a journal that was written anew is told from this one.
    file: Option<File>,
    inode: u64,
    records: HashMap<Digest, Place>,
    /// When a record was written or used last, seconds since 1970.
    used: HashMap<Digest, u64>,
    /// Stage → key of its last success or use.
    last: HashMap<Vec<u8>, Digest>,
    /// Writers' places in the two lists that follow.
    writers: HashMap<Vec<u8>, u32>,
    names: Vec<Vec<u8>>,
    /// How many of its records each has flushed.
    flushed: Vec<u64>,
    /// Lines that cannot be believed, by their place in the file.
    damaged: Vec<usize>,
    writer: String,
    /// Records that this writer has written.
    written: u64,
    /// First part of the names of all writers since this machine was started.
    boot: String,
}

impl Journal {
    /// The journal in the file `path`; it is read at first use.
    pub fn new(path: PathBuf) -> Self {
        let boot = boot();
        Self {
            path,
            text: Vec::new(),
            file: None,
            inode: 0,
            records: HashMap::new(),
            used: HashMap::new(),
            last: HashMap::new(),
            writers: HashMap::new(),
            names: Vec::new(),
            flushed: Vec::new(),
            damaged: Vec::new(),
            writer: format!("{boot}.{}", files::unique()),
            written: 0,
            boot,
        }
    }

    /// Reads what was appended since it was read last.
    pub fn refresh(&mut self) -> Result<()> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => network::current(&self.path, metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(None, 0);
                return Ok(());
            }
            Err(error) => return Err(error).at("look at", &self.path),
        };
        let known = self.text.len() as u64;
        if metadata.ino() == self.inode && metadata.size() == known {
            return Ok(());
        }
        if self.file.is_none() || metadata.ino() != self.inode || metadata.size() < known {
            // A collection has written it anew.
            let file = File::open(&self.path).at("read", &self.path)?;
            let inode = file.metadata().at("look at", &self.path)?.ino();
            self.forget(Some(file), inode);
        }
        let from = self.text.len();
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(from as u64)).at("read", &self.path)?;
            file.read_to_end(&mut self.text).at("read", &self.path)?;
        }
        // A line that is being written ends later.
        let whole = self.text.iter().rposition(|byte| *byte == b'\n').map_or(from, |end| end + 1);
        self.text.truncate(whole.max(from));
        self.take(from);
        Ok(())
    }

    fn forget(&mut self, file: Option<File>, inode: u64) {
        self.file = file;
        self.text.clear();
        self.inode = inode;
        self.records.clear();
        self.used.clear();
        self.last.clear();
        self.flushed.fill(0);
        self.damaged.clear();
    }

    /// Takes note of the lines from a byte on.
    fn take(&mut self, from: usize) {
        let text = std::mem::take(&mut self.text);
        let mut start = from;
        // Every line that is read has its end.
        while let Some(length) = memchr::memchr(b'\n', &text[start..]) {
            let end = start + length;
            if end > start && self.line(&text[start..end], start, end).is_none() {
                self.damaged.push(start);
            }
            start = end + 1;
        }
        self.text = text;
    }

    /// Takes note of a line; `None` if it is none. Checksums of records are compared when they are
    /// used ([`Self::json`]), all others here.
    fn line(&mut self, line: &[u8], start: usize, end: usize) -> Option<()> {
        let mut fields = line.splitn(7, |byte| *byte == b'\t');
        let kind = fields.next()?;
        fields.next()?;
        if kind != b"r" && !is_whole(line) {
            return None;
        }
        if kind == b"s" {
            let (writer, number) = numbered(fields.next()?)?;
            let writer = self.writer(writer) as usize;
            self.flushed[writer] = self.flushed[writer].max(number);
            return Some(());
        }
        let key = Digest::parse(fields.next()?)?;
        let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let writer = fields.next()?;
        match kind {
            b"d" => {
                self.records.remove(&key);
                self.used.remove(&key);
            }
            b"f" => {
                if let Some(place) = self.records.get_mut(&key) {
                    place.flushed = true;
                }
            }
            b"r" | b"u" => {
                let label = fields.next()?;
                if kind == b"r" {
                    fields.next()?;
                    let (writer, number) = numbered(writer)?;
                    let writer = self.writer(writer);
                    let place = Place { start, end, writer, number, flushed: false };
                    self.records.insert(key, place);
                }
                self.used.insert(key, time);
                match self.last.get_mut(label) {
                    Some(last) => *last = key,
                    None => {
                        self.last.insert(label.to_vec(), key);
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// A writer's place in the lists.
    fn writer(&mut self, writer: &[u8]) -> u32 {
        if let Some(place) = self.writers.get(writer) {
            return *place;
        }
        let place = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.writers.insert(writer.to_vec(), place);
        self.names.push(writer.to_vec());
        self.flushed.push(0);
        place
    }

    /// The JSON of a key's record; `None` where there is none.
    ///
    /// # Errors
    ///
    /// A line that cannot be believed.
    pub fn json(&self, key: &Digest) -> Option<std::result::Result<(&str, Trust), &'static str>> {
        let place = self.records.get(key)?;
        Some(self.at(place))
    }

    fn at(&self, place: &Place) -> std::result::Result<(&str, Trust), &'static str> {
        let line = &self.text[place.start..place.end];
        if !is_whole(line) {
            return Err("its line in the journal is damaged");
        }
        let json = line.splitn(7, |byte| *byte == b'\t').nth(6).unwrap_or_default();
        let json = std::str::from_utf8(json).map_err(|_| "its record is not readable")?;
        let writer = place.writer as usize;
        let trust = if self.is_flushed(place) {
            Trust::Flushed
        } else if self.names[writer].starts_with(self.boot.as_bytes()) {
            Trust::Written
        } else {
            Trust::Doubtful
        };
        Ok((json, trust))
    }

    fn is_flushed(&self, place: &Place) -> bool {
        place.flushed || place.number <= self.flushed[place.writer as usize]
    }

    /// Keys of all records, with the time of their last use, seconds since 1970.
    pub fn keys(&self) -> Vec<(Digest, u64)> {
        let used = |key: &Digest| self.used.get(key).copied().unwrap_or_default();
        let mut keys: Vec<_> = self.records.keys().map(|key| (*key, used(key))).collect();
        keys.sort_unstable();
        keys
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Key of a stage's last success or use.
    pub fn last(&self, label: &str) -> Option<Digest> {
        self.last.get(plain(label).as_bytes()).copied()
    }

    /// When a record was used last, seconds since 1970.
    pub fn used(&self, key: &Digest) -> Option<u64> {
        self.used.get(key).copied()
    }

    /// Where lines stand that cannot be believed, bytes from the start of the file; all are looked
    /// at, those of records that were replaced since, too.
    ///
    /// A line that a killed run has begun is none of them: the next writer removes it.
    pub fn damaged(&mut self) -> Result<Vec<usize>> {
        self.refresh()?;
        let mut damaged = self.damaged.clone();
        let mut start = 0;
        for line in self.text.split_inclusive(|byte| *byte == b'\n') {
            if !is_whole(&line[..line.len() - 1]) {
                damaged.push(start);
            }
            start += line.len();
        }
        // All of a line stands there and something else than its end: it was whole once.
        let bytes = files::read(&self.path)?.unwrap_or_default();
        let tail = bytes.get(start..).unwrap_or_default();
        if tail.split_last().is_some_and(|(_, line)| is_whole(line)) {
            damaged.push(start);
        }
        damaged.sort_unstable();
        damaged.dedup();
        Ok(damaged)
    }

    /// How many records this writer has written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends lines and takes note of them.
    pub fn append(&mut self, lines: &[Line<'_>]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for line in lines {
            self.write(*line, now(), &mut text);
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).at("create", folder)?;
        }
        let mut file = self.open_locked()?;
        if let Some(torn) = torn(&mut file).at("read", &self.path)? {
            // A line that a kill, a loss of power or a full disk has cut short: nobody writes it
            // any more, as the lock is ours.
            file.set_len(torn).at("mend", &self.path)?;
        }
        let length = file.metadata().at("look at", &self.path)?.len();
        if let Err(error) = file.write_all(&text) {
            // Half a line would do no harm, but a whole one of a failed call might be believed.
            let _ = file.set_len(length);
            return Err(error).at("write", &self.path);
        }
        drop(file);
        self.refresh()
    }

    /// The file, locked; it is still the one that the path names then.
    fn open_locked(&self) -> Result<File> {
        loop {
            let mut options = File::options();
            let file = options.read(true).append(true).create(true).open(&self.path);
            let file = file.at("open", &self.path)?;
            flock::wait(&file, libc::LOCK_EX).at("lock", &self.path)?;
            let own = file.metadata().at("look at", &self.path)?.ino();
            if std::fs::metadata(&self.path).is_ok_and(|named| named.ino() == own) {
                return Ok(file);
            }
        }
    }

    fn write(&mut self, line: Line<'_>, time: u64, text: &mut Vec<u8>) {
        if matches!(line, Line::Record { .. }) {
            self.written += 1;
        }
        let (writer, number) = (&self.writer, self.written);
        let (kind, rest) = match line {
            Line::Record { key, label, json } => {
                ('r', format!("{key}\t{time}\t{writer}#{number}\t{}\t{json}", plain(label)))
            }
            Line::Use { key, label } => ('u', format!("{key}\t{time}\t{writer}\t{}", plain(label))),
            Line::Drop { key } => ('d', format!("{key}\t{time}\t{writer}")),
            Line::Kept { key } => ('f', format!("{key}\t{time}\t{writer}")),
            Line::Flushed { number } => ('s', format!("{writer}#{number}\t{time}")),
        };
        let sum = checksum(kind as u8, rest.as_bytes());
        text.extend_from_slice(format!("{kind}\t{sum:08x}\t{rest}\n").as_bytes());
    }

    /// Makes what was appended survive a loss of power.
    pub fn flush(&self) -> Result<()> {
        match File::open(&self.path) {
            Ok(file) => file.sync_data().at("flush", &self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).at("flush", &self.path),
        }
    }

    /// Writes the journal anew with the records that `keep` keeps, the last key of each stage
    /// among them, and nothing else. Nobody appends meanwhile.
    pub fn compact(&mut self, keep: impl Fn(&Digest) -> bool) -> Result<()> {
        let _lock = if self.path.exists() { Some(self.open_locked()?) } else { None };
        self.refresh()?;
        let mut labels: HashMap<Digest, Vec<String>> = HashMap::new();
        for (label, key) in &self.last {
            labels.entry(*key).or_default().push(String::from_utf8_lossy(label).into_owned());
        }
        let is_kept = |(key, place): &(&Digest, &Place)| keep(key) && self.at(place).is_ok();
        let kept = self.records.iter().filter(is_kept);
        let mut kept: Vec<(Digest, Place)> = kept.map(|(key, place)| (*key, *place)).collect();
        kept.sort_by_key(|(_, place)| place.start);
        // Who used what last comes at the end: a record's line says that of its own stage, too.
        let (mut flushed, mut others, mut uses) = (Vec::new(), Vec::new(), Vec::new());
        for (key, place) in kept {
            let line = self.text[place.start..place.end].to_vec();
            let fields: Vec<&[u8]> = line.splitn(7, |byte| *byte == b'\t').collect();
            let [_, _, _, _, _, label, json] = fields[..] else { continue };
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let (label, json) = (text(label), text(json));
            let used = self.used.get(&key).copied().unwrap_or_default();
            if self.is_flushed(&place) {
                let record = Line::Record { key: &key, label: &label, json: &json };
                self.write(record, used, &mut flushed);
            } else {
                // It waits for its own writer's word, or for a check.
                others.extend_from_slice(&line);
                others.push(b'\n');
            }
            for label in labels.remove(&key).unwrap_or_default() {
                self.write(Line::Use { key: &key, label: &label }, used, &mut uses);
            }
        }
        self.write(Line::Flushed { number: self.written }, now(), &mut flushed);
        flushed.extend(others);
        flushed.extend(uses);
        files::publish(&self.path, &flushed)?;
        // Or a loss of power would bring the old file back, without what is appended from now on.
        files::flush(self.path.parent().unwrap_or(Path::new(".")))?;
        self.forget(None, 0);
        self.refresh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &Path) -> Journal {
        let mut journal = Journal::new(folder.join("journal"));
        journal.refresh().unwrap();
        journal
    }

    fn json(journal: &Journal, key: &Digest) -> Option<(String, Trust)> {
        journal.json(key).map(|found| found.map(|(json, trust)| (json.to_owned(), trust)).unwrap())
    }

    #[test]
    fn two_writers_see_each_others_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (journal(folder.path()), journal(folder.path()));
        let keys = [Digest::of(b"a"), Digest::of(b"b")];
        one.append(&[Line::Record { key: &keys[0], label: "p/a\tb", json: "{}" }]).unwrap();
        two.append(&[Line::Record { key: &keys[1], label: "p/b", json: "[]" }]).unwrap();
        assert_eq!(json(&two, &keys[0]), Some(("{}".to_owned(), Trust::Written)));
        assert_eq!(json(&one, &keys[1]), None);
        one.refresh().unwrap();
        assert_eq!(json(&one, &keys[1]), Some(("[]".to_owned(), Trust::Written)));
        assert_eq!(one.last("p/a\tb"), Some(keys[0]));
        one.append(&[Line::Use { key: &keys[1], label: "p/a\tb" }]).unwrap();
        assert_eq!(one.last("p/a\tb"), Some(keys[1]));
        one.append(&[Line::Drop { key: &keys[0] }]).unwrap();
        assert_eq!(json(&one, &keys[0]), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let key = Digest::of(b"a");
        let mut first = journal(folder.path());
        first.append(&[Line::Record { key: &key, label: "p/a", json: "{\"x\":1}" }]).unwrap();
        first
            .append(&[Line::Use { key: &key, label: "p/a" }, Line::Flushed { number: 1 }])
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut text = whole.clone();
            text[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &text).unwrap();
            assert!(!journal(folder.path()).damaged().unwrap().is_empty(), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_line_does_not_take_the_next_one_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let keys = [Digest::of(b"a"), Digest::of(b"b")];
        let mut first = journal(folder.path());
        first.append(&[Line::Record { key: &keys[0], label: "p/a", json: "{}" }]).unwrap();
        let text = std::fs::read(&path).unwrap();
        for cut in [text.len() - 3, text.len() - 1, 1] {
            std::fs::write(&path, &text[..cut]).unwrap();
            let mut second = journal(folder.path());
            assert_eq!(json(&second, &keys[0]), None);
            second.append(&[Line::Record { key: &keys[1], label: "p/b", json: "{}" }]).unwrap();
            let mut third = journal(folder.path());
            assert!(json(&third, &keys[1]).is_some());
            // A kill is no damage, and nothing of the line is left.
            assert!(third.damaged().unwrap().is_empty());
            assert_eq!(third.json(&keys[0]).map(|found| found.is_ok()), None);
        }
    }

    #[test]
    fn a_journal_that_was_written_anew_is_read_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let keys = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let add = |journal: &mut Journal, key: &Digest| {
            journal.append(&[Line::Record { key, label: "p/a", json: "{}" }]).unwrap();
        };
        let (mut reader, mut other) = (journal(folder.path()), journal(folder.path()));
        add(&mut other, &keys[0]);
        reader.refresh().unwrap();
        // Twice: the second one's inode could be that of the first file.
        for _ in 0..2 {
            other.compact(|_| false).unwrap();
        }
        add(&mut other, &keys[1]);
        add(&mut other, &keys[2]);
        reader.refresh().unwrap();
        assert_eq!(keys.map(|key| json(&reader, &key).is_some()), [false, true, true]);
    }

    #[test]
    fn what_was_not_flushed_before_another_boot_is_doubtful() {
        let folder = tempfile::tempdir().unwrap();
        let keys = [Digest::of(b"a"), Digest::of(b"b")];
        let mut old = journal(folder.path());
        old.boot = "another".to_owned();
        old.writer = "another.1".to_owned();
        let flushed = Line::Flushed { number: 1 };
        old.append(&[Line::Record { key: &keys[0], label: "p/a", json: "{}" }, flushed]).unwrap();
        old.append(&[Line::Record { key: &keys[1], label: "p/b", json: "{}" }]).unwrap();
        let mut new = journal(folder.path());
        let trust = |journal: &Journal| keys.map(|key| json(journal, &key).unwrap().1);
        assert_eq!(trust(&new), [Trust::Flushed, Trust::Doubtful]);
        // Another writer's flush says nothing of it, nor does a compaction.
        new.append(&[Line::Flushed { number: 2 }]).unwrap();
        new.compact(|_| true).unwrap();
        assert_eq!(trust(&journal(folder.path())), [Trust::Flushed, Trust::Doubtful]);
        // Whoever has checked and flushed it says so.
        new.append(&[Line::Kept { key: &keys[1] }]).unwrap();
        assert_eq!(trust(&journal(folder.path())), [Trust::Flushed; 2]);
        new.compact(|_| true).unwrap();
        assert_eq!(trust(&journal(folder.path())), [Trust::Flushed; 2]);
    }

    #[test]
    fn a_compaction_keeps_what_it_is_told_and_the_last_keys() {
        let folder = tempfile::tempdir().unwrap();
        let keys = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let [mut one, mut other] = [journal(folder.path()), journal(folder.path())];
        for (key, label) in keys.iter().zip(["p/a", "p/b", "p/b"]) {
            one.append(&[Line::Record { key, label, json: "{}" }]).unwrap();
        }
        one.append(&[Line::Use { key: &keys[1], label: "p/b" }]).unwrap();
        other.refresh().unwrap();
        one.compact(|key| *key != keys[0]).unwrap();
        other.refresh().unwrap();
        assert_eq!(other.keys().len(), 2);
        assert_eq!((other.last("p/a"), other.last("p/b")), (None, Some(keys[1])));
        assert!(other.damaged().unwrap().is_empty());
    }
}
