//! Records of actions: looked up by key, published whole.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::error::{At, Result};
use super::{ActionRecord, Cache, Digest, files};

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

impl Cache {
    /// The file of a key's record.
    pub fn action(&self, key: &Digest) -> PathBuf {
        self.root().join("actions").join(format!("{key}.json"))
    }

    /// What is known of a key.
    pub fn lookup(&self, key: &Digest) -> Result<Lookup> {
        let path = self.action(key);
        let Some(bytes) = files::read(&path)? else { return Ok(Lookup::Miss) };
        let Ok(record) = serde_json::from_slice::<ActionRecord>(&bytes) else {
            return Ok(Lookup::Damaged("its record is not readable".to_owned()));
        };
        if record.key.digest() != *key {
            return Ok(Lookup::Damaged("its record belongs to another key".to_owned()));
        }
        let missing = record.outputs.iter().find(|(_, output)| !self.has(output));
        Ok(match missing {
            Some((port, output)) => {
                let object = output.digest.short();
                Lookup::Damaged(format!("output {port} ({object}) is gone or cut short"))
            }
            None => Lookup::Hit(Box::new(record)),
        })
    }

    /// Publishes the record of an action that succeeded; its outputs are stored already.
    pub fn record(&self, record: &ActionRecord) -> Result<Digest> {
        let key = record.key.digest();
        let mut json = serde_json::to_vec_pretty(record).expect("a record serialises to JSON");
        json.push(b'\n');
        files::publish(&self.action(&key), &json)?;
        Ok(key)
    }

    /// Remembers that a record was used, to the day: the garbage collection keeps it longer.
    pub fn touch(&self, key: &Digest) -> Result<()> {
        let path = self.action(key);
        let used = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        if used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > day)) {
            let file = std::fs::File::open(&path).at("open", &path)?;
            file.set_modified(now).at("touch", &path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cache::{ActionKey, StoredOutput};
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
            stage: "a".to_owned(),
            host: "h".to_owned(),
            version: "0.1.0".to_owned(),
        };
        assert!(matches!(cache.lookup(&key.digest()).unwrap(), Lookup::Miss));
        let digest_of_key = cache.record(&record).unwrap();
        let Lookup::Hit(found) = cache.lookup(&digest_of_key).unwrap() else { panic!("no hit") };
        assert_eq!(*found, record);
        let object = cache.object(&digest);
        files::remove(&object).unwrap();
        std::fs::write(&object, "cont").unwrap();
        let Lookup::Damaged(what) = cache.lookup(&digest_of_key).unwrap() else { panic!("a hit") };
        assert!(what.starts_with("output out ("), "{what}");
        std::fs::write(cache.action(&digest_of_key), "{").unwrap();
        assert!(matches!(cache.lookup(&digest_of_key).unwrap(), Lookup::Damaged(_)));
    }
}
