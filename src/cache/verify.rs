//! Verification: every object is read and compared with its digest.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::Result;
use super::object::same_file;
use super::tree::{Manifest, hash_file};
use super::{ActionRecord, Cache, Digest, files};

/// Something wrong in the cache.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// An object's content is not what its name says.
    Changed {
        /// The object.
        path: PathBuf,
        /// Digest of its content now.
        found: Digest,
        /// Stages whose output it is.
        stages: Vec<String>,
    },
    /// A record names an output that is not there or has another size.
    Missing {
        /// The record's key.
        key: Digest,
        /// The stage that it is of.
        stage: String,
        /// Its output's port.
        port: String,
    },
    /// A record of what was made from a damaged object: nobody knows whether before or after the damage.
    MadeFrom {
        /// The record's key.
        key: Digest,
        /// The stage that it is of.
        stage: String,
        /// Its input's port.
        port: String,
    },
    /// A line of the journal that cannot be believed.
    Line {
        /// The journal.
        path: PathBuf,
        /// Where the line starts.
        byte: usize,
    },
    /// A file in `objects` whose name is no digest.
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { path, found, stages } => {
                let of = if stages.is_empty() {
                    "no stage's output".to_owned()
                } else {
                    format!("output of {}", stages.join(", "))
                };
                write!(f, "{}: content has digest {} ({of})", path.display(), found.short())
            }
            Self::Missing { key, stage, port } => {
                let key = key.short();
                write!(f, "record {key}: output {port} of {stage} is missing or has another size")
            }
            Self::MadeFrom { key, stage, port } => {
                let key = key.short();
                write!(
                    f,
                    "record {key}: input {port} of {stage} is damaged, its result may be of that"
                )
            }
            Self::Line { path, byte } => {
                write!(f, "{}: the line at byte {byte} is damaged", path.display())
            }
            Self::Foreign { path } => write!(f, "{}: not an object of qpipe's", path.display()),
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Objects read.
    pub objects: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Records read.
    pub actions: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Cache {
    /// Reads every object and every record.
    pub fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        // What is told of records must be of one moment; objects may go while they are read.
        let hold = self.share()?;
        let damaged = self.journal().damaged()?;
        let journal = self.place("journal");
        let line = |byte| Fault::Line { path: journal.clone(), byte };
        verified.faults.extend(damaged.into_iter().map(line));
        let records: Vec<ActionRecord> =
            self.records()?.into_iter().map(|(record, _)| record).collect();
        verified.actions = self.journal().len();
        for record in &records {
            for (port, output) in &record.outputs {
                if !self.has(output) {
                    let (key, stage) = (record.key.digest(), record.stage.clone());
                    verified.faults.push(Fault::Missing { key, stage, port: port.clone() });
                }
            }
        }
        verified.faults.extend(self.changed_copies(&records)?);
        let mut objects = Vec::new();
        for folder in files::list(&self.place("objects"))? {
            objects.extend(whole(&folder)?);
        }
        drop(hold);
        let read = |path: &PathBuf| -> Result<(u64, Option<Fault>)> {
            let Some(name) = digest_of(path) else {
                return Ok((0, Some(Fault::Foreign { path: path.clone() })));
            };
            let (found, bytes) = match hash_file(path) {
                // A collection has removed it meanwhile.
                Err(_) if !path.exists() => return Ok((0, None)),
                read => read?,
            };
            let stages = || self.stages_with(&records, &name);
            let fault = (found != name).then(|| Fault::Changed {
                path: path.clone(),
                found,
                stages: stages(),
            });
            Ok((bytes, fault))
        };
        let results: Vec<_> = objects.par_iter().map(read).collect::<Result<_>>()?;
        verified.objects = results.len();
        for (bytes, fault) in results {
            verified.bytes += bytes;
            verified.faults.extend(fault);
        }
        verified.faults.extend(self.made_from_damage(&records, &verified.faults));
        Ok(verified)
    }

    /// Records whose keys name what was found to be damaged.
    fn made_from_damage(&self, records: &[ActionRecord], faults: &[Fault]) -> Vec<Fault> {
        let changed: HashSet<&Path> = faults
            .iter()
            .filter_map(|fault| match fault {
                Fault::Changed { path, .. } => Some(path.as_path()),
                _ => None,
            })
            .collect();
        if changed.is_empty() {
            return Vec::new();
        }
        let is_changed = |path: PathBuf| changed.contains(path.as_path());
        let mut damaged: HashSet<Digest> =
            changed.iter().filter_map(|path| digest_of(path)).collect();
        for output in records.iter().flat_map(|record| record.outputs.values()) {
            let manifest = output.directory.then(|| self.manifest(&output.digest)).flatten();
            let root = self.tree(&output.digest);
            if manifest.unwrap_or_default().entries.iter().any(|entry| {
                is_changed(self.object(&entry.digest)) || is_changed(root.join(&entry.path))
            }) {
                damaged.insert(output.digest);
            }
        }
        let mut found = Vec::new();
        for record in records {
            let input = record.key.inputs.iter().find(|(_, digest)| damaged.contains(digest));
            found.extend(input.map(|(port, _)| Fault::MadeFrom {
                key: record.key.digest(),
                stage: record.stage.clone(),
                port: port.clone(),
            }));
        }
        found
    }

    fn stages_with(&self, records: &[ActionRecord], digest: &Digest) -> Vec<String> {
        let made = |record: &ActionRecord| {
            record.outputs.values().any(|output| {
                let manifest = || self.manifest(&output.digest).unwrap_or_default();
                output.digest == *digest
                    || output.directory
                        && manifest().entries.iter().any(|entry| entry.digest == *digest)
            })
        };
        let with = records.iter().filter(|record| made(record));
        let mut stages: Vec<String> = with.map(|record| record.stage.clone()).collect();
        stages.sort();
        stages.dedup();
        stages
    }

    /// Files of folders that are copies of objects, not links to them, and have changed.
    fn changed_copies(&self, records: &[ActionRecord]) -> Result<Vec<Fault>> {
        let mut copies = Vec::new();
        for output in records.iter().flat_map(|record| record.outputs.values()) {
            let manifest = output.directory.then(|| self.manifest(&output.digest)).flatten();
            for entry in manifest.unwrap_or_default().entries {
                let path = self.tree(&output.digest).join(&entry.path);
                if path.exists() && !same_file(&path, &self.object(&entry.digest)) {
                    copies.push((path, entry.digest));
                }
            }
        }
        copies.sort();
        copies.dedup();
        let check = |(path, digest): &(PathBuf, Digest)| {
            let (found, _) = hash_file(path)?;
            let stages = || self.stages_with(records, digest);
            let changed = || Fault::Changed { path: path.clone(), found, stages: stages() };
            Ok((found != *digest).then(changed))
        };
        let faults: Vec<_> = copies.par_iter().map(check).collect::<Result<_>>()?;
        Ok(faults.into_iter().flatten().collect())
    }

    /// Removes what is damaged, the records that need it and those of what was made from it: the next run makes it anew.
    pub fn repair(&self, verified: &Verified) -> Result<()> {
        let _own = self.own()?;
        let mut doubtful = HashSet::new();
        for fault in &verified.faults {
            match fault {
                Fault::MadeFrom { key, .. } => drop(doubtful.insert(*key)),
                Fault::Changed { path, .. } | Fault::Foreign { path } => files::remove(path)?,
                Fault::Missing { .. } | Fault::Line { .. } => {}
            }
        }
        // Trees hold links to what was removed: those that have lost a file go as well.
        for folder in files::list(&self.place("trees"))? {
            for tree in files::list(&folder)? {
                let manifest = digest_of(&tree).and_then(|digest| self.manifest(&digest));
                let whole = |manifest: Manifest| {
                    manifest.entries.iter().all(|entry| self.object(&entry.digest).exists())
                };
                if !manifest.is_some_and(whole) {
                    files::remove(&tree)?;
                }
            }
        }
        let mut kept = HashSet::new();
        for (record, _) in self.records()? {
            let mut whole = !doubtful.contains(&record.key.digest());
            for output in record.outputs.values() {
                whole &= self.has(output) || self.mend(output)?;
            }
            if whole {
                kept.insert(record.key.digest());
            }
        }
        self.journal().compact(|key| kept.contains(key))
    }
}

/// What is in a folder, but for what a killed run had begun to write: nobody reads that.
fn whole(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = files::list(folder)?;
    paths.retain(|path| !files::is_temporary(path));
    Ok(paths)
}

/// The digest that an object's place names.
fn digest_of(path: &Path) -> Option<Digest> {
    let rest = path.file_name()?.to_str()?;
    let first = path.parent()?.file_name()?.to_str()?;
    Digest::try_from(format!("{first}{rest}")).ok()
}
