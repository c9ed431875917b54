//! Records of actions: looked up by key, published whole.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::Result;
use super::journal::{Line, Trust};
use super::journal_line::now;
use super::object::same_file;
use super::record::RecordWithoutKey;
use super::tree::hash_file;
use super::{ActionKey, ActionRecord, Cache, Digest, StoredOutput, files};

/// What the cache knows of a key.
#[derive(Debug)]
pub enum Lookup {
    /// The action succeeded once and all its outputs are there.
    Hit(Box<ActionRecord>),
    /// Nothing is known.
    Miss,
    /// There is a record, but it cannot be used: what is wrong with it. Running repairs it.
    Damaged(String),
}

/// A key's record, if there is one; what is wrong with it, if it cannot be believed.
type Found = Option<std::result::Result<(ActionRecord, Trust), &'static str>>;

/// Records that were not used for this long are marked as used again, seconds.
const DAY: u64 = 86_400;

impl Cache {
    /// What is known of the key with that digest.
    pub fn lookup(&self, key: &Digest) -> Result<Lookup> {
        let found = self.read_record(key)?;
        self.judge(key, found)
    }

    /// What is known of a key, whose digest is known as well. As [`Self::lookup`], without reading
    /// the key again.
    pub fn lookup_key(&self, key: &ActionKey, digest: &Digest) -> Result<Lookup> {
        let found = self.with_json(digest, |json| {
            let rest = serde_json::from_str::<RecordWithoutKey>(json);
            rest.map(|rest| rest.with(key.clone())).map_err(|_| "its record is not readable")
        })?;
        self.judge(digest, found)
    }

    /// Whether a record can be used.
    fn judge(&self, key: &Digest, found: Found) -> Result<Lookup> {
        let (record, trust) = match found {
            None => return Ok(Lookup::Miss),
            Some(Err(reason)) => return Ok(Lookup::Damaged(reason.to_owned())),
            Some(Ok(found)) => found,
        };
        for (port, output) in &record.outputs {
            if !self.is_sound(output) && !self.mend(output)? {
                let object = output.digest.short();
                let what = if self.has(output) { "was changed" } else { "is gone or cut short" };
                return Ok(Lookup::Damaged(format!("output {port} ({object}) {what}")));
            }
        }
        if trust == Trust::Doubtful && !self.checked().contains(key) {
            for (port, output) in &record.outputs {
                if !self.is_whole(output)? {
                    let object = output.digest.short();
                    let what = format!("output {port} ({object}) did not survive a loss of power");
                    return Ok(Lookup::Damaged(what));
                }
            }
            self.checked().insert(*key);
        }
        if trust != Trust::Flushed {
            self.adopted().insert(*key);
        }
        Ok(Lookup::Hit(Box::new(record)))
    }

    /// The record of a key, whether or not its outputs are there.
    fn read_record(&self, key: &Digest) -> Result<Found> {
        self.with_json(key, |json| {
            let record = serde_json::from_str::<ActionRecord>(json);
            let record = record.map_err(|_| "its record is not readable")?;
            let same = record.key.digest() == *key;
            if same { Ok(record) } else { Err("its record belongs to another key") }
        })
    }

    /// The record of a key, read from its line by `read`.
    fn with_json(
        &self,
        key: &Digest,
        read: impl Fn(&str) -> std::result::Result<ActionRecord, &'static str>,
    ) -> Result<Found> {
        let mut journal = self.journal();
        if journal.json(key).is_none() {
            journal.refresh()?;
        }
        let Some(found) = journal.json(key) else { return Ok(None) };
        Ok(Some(found.and_then(|(json, trust)| {
            let record = read(json)?;
            if !record.outputs.values().all(StoredOutput::is_inside) {
                return Err("an output of its record lies outside of its folder");
            }
            Ok((record, trust))
        })))
    }

    /// The record of a key, where its line can be read; its outputs need not be there.
    pub fn record_of(&self, key: &Digest) -> Result<Option<ActionRecord>> {
        Ok(self.read_record(key)?.and_then(|found| found.ok()).map(|(record, _)| record))
    }

    /// All records whose lines can be read, oldest key first, with the time of their last use in
    /// seconds since 1970. Their outputs need not be there.
    pub fn records(&self) -> Result<Vec<(ActionRecord, u64)>> {
        self.journal().refresh()?;
        let keys = self.journal().keys();
        let mut records = Vec::new();
        for (key, used) in keys {
            if let Some(Ok((record, _))) = self.read_record(&key)? {
                records.push((record, used));
            }
        }
        Ok(records)
    }

    /// Publishes the record of an action that succeeded; its outputs are stored already.
    pub fn record(&self, record: &ActionRecord) -> Result<Digest> {
        let key = record.key.digest();
        let json = serde_json::to_string(record).expect("a record serialises to JSON");
        self.journal().append(&[Line::Record { key: &key, label: &record.stage, json: &json }])?;
        Ok(key)
    }

    /// Takes records back.
    pub fn withdraw(&self, keys: &[Digest]) -> Result<()> {
        let lines: Vec<Line> = keys.iter().map(|key| Line::Drop { key }).collect();
        self.journal().append(&lines)
    }

    /// The record of the last success of a stage (`pipeline/id`), or of its last use of one.
    pub fn last_record(&self, stage: &str) -> Result<Option<ActionRecord>> {
        self.journal().refresh()?;
        let key = self.journal().last(stage);
        let Some(key) = key else { return Ok(None) };
        Ok(self.read_record(&key)?.and_then(|found| found.ok()).map(|(record, _)| record))
    }

    /// Digest of the key of a stage's last success, or of its last use of one, as far as the journal
    /// was read.
    pub fn last_digest(&self, stage: &str) -> Option<Digest> {
        self.journal().last(stage)
    }

    /// Remembers which records stages (`pipeline/id`) used. Written is only what is news: another
    /// record than last time, or the first use of a day; a collection keeps it longer.
    pub fn used<'u>(&self, used: impl Iterator<Item = (&'u str, Digest)>) -> Result<()> {
        let mut journal = self.journal();
        let now = now();
        let news: Vec<(&str, Digest)> = used
            .filter(|(label, key)| {
                let recent = journal.used(key).is_some_and(|used| now < used.saturating_add(DAY));
                !recent || journal.last(label) != Some(*key)
            })
            .collect();
        let lines: Vec<Line> = news.iter().map(|(label, key)| Line::Use { key, label }).collect();
        journal.append(&lines)
    }

    /// Whether the content of an output is what its digest says.
    pub fn is_whole(&self, output: &StoredOutput) -> Result<bool> {
        let same = |path: &Path, digest: &Digest| match hash_file(path) {
            Ok((found, _)) => Ok(found == *digest),
            Err(_) if !path.exists() => Ok(false),
            Err(error) => Err(error),
        };
        if !same(&self.object(&output.digest), &output.digest)? {
            return Ok(false);
        }
        if !output.directory {
            return Ok(true);
        }
        let Some(manifest) = self.manifest(&output.digest) else { return Ok(false) };
        let root = self.tree(&output.digest);
        let whole: Vec<bool> = manifest
            .entries
            .par_iter()
            .map(|entry| {
                // Its object has the same content if it is the same file; else that is read too.
                let (path, object) = (root.join(&entry.path), self.object(&entry.digest));
                let linked = same_file(&path, &object);
                Ok(same(&path, &entry.digest)? && (linked || same(&object, &entry.digest)?))
            })
            .collect::<Result<_>>()?;
        Ok(whole.into_iter().all(|whole| whole))
    }

    /// Makes all that was stored, recorded and used up to now survive a loss of power.
    pub fn flush(&self) -> Result<()> {
        let adopted = self.unflushed()?;
        let (mut pending, number) = {
            // Together: an object is put among the pending ones before its record is written.
            let journal = self.journal();
            (std::mem::take(&mut *self.pending()), journal.written())
        };
        for record in &adopted {
            self.mark(record, &mut pending);
            // Where there are no hard links, its folders are copies.
            for output in record.outputs.values().filter(|output| output.directory) {
                let entries = self.manifest(&output.digest).unwrap_or_default().entries;
                let root = self.tree(&output.digest);
                pending.extend(entries.iter().map(|entry| root.join(&entry.path)));
            }
        }
        if pending.is_empty() {
            return Ok(());
        }
        let keys: Vec<Digest> = adopted.iter().map(|record| record.key.digest()).collect();
        let flushed = self.flush_these(&pending, number, &keys);
        if flushed.is_err() {
            // The next call speaks for them as well.
            self.pending().extend(pending);
            self.adopted().extend(keys);
        }
        flushed
    }

    fn flush_these(&self, pending: &[PathBuf], number: u64, keys: &[Digest]) -> Result<()> {
        pending.par_iter().map(|path| files::flush(path)).collect::<Result<Vec<()>>>()?;
        // Their names, and those of the folders on the way to them; the journal's stands in the root.
        let inside = |path: &&Path| path.starts_with(self.root());
        let mut folders: Vec<_> =
            pending.iter().flat_map(|path| path.ancestors().skip(1).take_while(inside)).collect();
        folders.sort();
        folders.dedup();
        folders.par_iter().map(|folder| files::flush(folder)).collect::<Result<Vec<()>>>()?;
        let mut lines: Vec<Line> = keys.iter().map(|key| Line::Kept { key }).collect();
        lines.push(Line::Flushed { number });
        self.journal().append(&lines)?;
        self.journal().flush()
    }

    /// Records of others that were used, and that nobody has flushed meanwhile.
    fn unflushed(&self) -> Result<Vec<ActionRecord>> {
        let adopted = std::mem::take(&mut *self.adopted());
        if adopted.is_empty() {
            return Ok(Vec::new());
        }
        self.journal().refresh()?;
        let mut records = Vec::new();
        for key in adopted {
            if let Some(Ok((record, trust))) = self.read_record(&key)?
                && trust != Trust::Flushed
            {
                records.push(record);
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stages::contract::PortType;

    #[test]
    fn a_record_whose_object_is_gone_or_short_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, "content").unwrap();
        let digest = cache.store(&source).unwrap().digest;
        let key = ActionKey {
            format: ActionKey::FORMAT,
            kind: "command".to_owned(),
            kind_version: 1,
            config: serde_json::json!({"b": 1.5, "a": [true]}),
            inputs: BTreeMap::new(),
            seed: 1,
            facts: BTreeMap::new(),
        };
        let output = StoredOutput {
            digest,
            kind: PortType::File,
            file: "out".to_owned(),
            directory: false,
            bytes: 7,
        };
        let record = ActionRecord {
            key: key.clone(),
            outputs: BTreeMap::from([("out".to_owned(), output)]),
            metrics: BTreeMap::new(),
            warnings: Vec::new(),
            started: "2025-01-01T00:00:00Z".to_owned(),
            seconds: 0.5,
            stage: "p/a".to_owned(),
            host: "h".to_owned(),
            version: "0.1.0".to_owned(),
        };
        assert!(matches!(cache.lookup(&key.digest()).unwrap(), Lookup::Miss));
        let digest_of_key = cache.record(&record).unwrap();
        cache.flush().unwrap();
        let Lookup::Hit(found) = cache.lookup(&digest_of_key).unwrap() else { panic!("no hit") };
        assert_eq!(*found, record);
        assert_eq!(cache.last_record("p/a").unwrap().unwrap().key, key);
        assert_eq!(cache.last_digest("p/a"), Some(digest_of_key));
        let object = cache.object(&digest);
        files::remove(&object).unwrap();
        std::fs::write(&object, "cont").unwrap();
        let Lookup::Damaged(what) = cache.lookup(&digest_of_key).unwrap() else { panic!("a hit") };
        assert!(what.starts_with("output out ("), "{what}");
        cache.withdraw(&[digest_of_key]).unwrap();
        assert!(matches!(cache.lookup(&digest_of_key).unwrap(), Lookup::Miss));
    }
}
