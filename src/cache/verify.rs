//! Verification: every object is read and compared with its digest.

use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::Result;
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
        /// The record.
        record: PathBuf,
        /// The stage that it is of.
        stage: String,
        /// Its output's port.
        port: String,
    },
    /// A record that cannot be read, or that belongs to another key.
    Record {
        /// The record.
        path: PathBuf,
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
            Self::Missing { record, stage, port } => {
                let record = record.display();
                write!(f, "{record}: output {port} of {stage} is missing or has another size")
            }
            Self::Record { path } => write!(f, "{}: not a readable record", path.display()),
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
        let mut records = Vec::new();
        for path in whole(&self.place("actions"))? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let record = files::read(&path)?
                .and_then(|bytes| serde_json::from_slice::<ActionRecord>(&bytes).ok())
                .filter(|record| record.key.digest().hex() == name);
            verified.actions += 1;
            match record {
                Some(record) => records.push((path, record)),
                None => verified.faults.push(Fault::Record { path }),
            }
        }
        for (path, record) in &records {
            for (port, output) in &record.outputs {
                if !self.has(output) {
                    let (record, stage) = (path.clone(), record.stage.clone());
                    verified.faults.push(Fault::Missing { record, stage, port: port.clone() });
                }
            }
        }
        let mut objects = Vec::new();
        for folder in files::list(&self.place("objects"))? {
            objects.extend(whole(&folder)?);
        }
        let read = |path: &PathBuf| -> Result<(u64, Option<Fault>)> {
            let Some(name) = digest_of(path) else {
                return Ok((0, Some(Fault::Foreign { path: path.clone() })));
            };
            let (found, bytes) = hash_file(path)?;
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
        Ok(verified)
    }

    fn stages_with(&self, records: &[(PathBuf, ActionRecord)], digest: &Digest) -> Vec<String> {
        let made = |record: &ActionRecord| {
            record.outputs.values().any(|output| {
                let manifest = || self.manifest(&output.digest).unwrap_or_default();
                output.digest == *digest
                    || output.directory
                        && manifest().entries.iter().any(|entry| entry.digest == *digest)
            })
        };
        let with = records.iter().filter(|(_, record)| made(record));
        let mut stages: Vec<String> = with.map(|(_, record)| record.stage.clone()).collect();
        stages.sort();
        stages.dedup();
        stages
    }

    /// Removes what is damaged, and the records that need it: the next run makes it anew.
    pub fn repair(&self, verified: &Verified) -> Result<()> {
        let _own = self.own()?;
        for fault in &verified.faults {
            match fault {
                Fault::Changed { path, .. } | Fault::Foreign { path } => files::remove(path)?,
                Fault::Missing { record, .. } | Fault::Record { path: record } => {
                    files::remove(record)?;
                }
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
        for path in whole(&self.place("actions"))? {
            let record = files::read(&path)?
                .and_then(|bytes| serde_json::from_slice::<ActionRecord>(&bytes).ok());
            if !record.is_some_and(|record| record.outputs.values().all(|output| self.has(output)))
            {
                files::remove(&path)?;
            }
        }
        Ok(())
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
