//! Facts of the machine for cache keys. Those of libraries only the worker knows; it takes half a
//! second to start, so its answers are remembered as long as the files they came from are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Result, RunError};
use super::worker::{self, WorkerError};
use super::{answer, host};
use crate::cache::{Cache, files};
use crate::stages::contract::Fact;

/// Variables that decide which libraries the worker loads, and where it computes.
const VARIABLES: &[&str] = &[
    "ORT_DYLIB_PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBTORCH",
    "TENSORRT_RTX_DIR",
    "TENSORRT_DIR",
    "TRTEXEC",
    "CUDA_DEVICE_ORDER",
    "QPIPE_DEVICE",
    "CUDA_VISIBLE_DEVICES",
];

/// How long the worker may take to tell facts: it opens libraries, from a slow disk at worst.
const PATIENCE: Duration = Duration::from_secs(120);

/// Facts of the machine, found when they are asked for.
#[derive(Debug)]
pub struct Facts {
    wanted: BTreeSet<Fact>,
    path: PathBuf,
    known: BTreeMap<String, String>,
    answer: Option<Answer>,
    new: bool,
    /// Facts that the worker could not tell.
    untold: BTreeSet<String>,
}

/// What the worker said, and what it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// The worker's file and [`VARIABLES`].
    asked: Vec<String>,
    /// Files that the facts came from, as they were.
    files: Vec<String>,
    /// The facts.
    facts: BTreeMap<String, String>,
}

/// What `qpipe-worker facts` prints.
#[derive(Deserialize)]
struct Printed {
    facts: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<PathBuf>,
}

impl Facts {
    /// `wanted`: all facts that the run may ask for, so that the worker is asked once.
    pub fn new(cache: &Cache, wanted: impl IntoIterator<Item = Fact>) -> Self {
        let (path, wanted) = (cache.place("facts.json"), wanted.into_iter().collect());
        Self {
            wanted,
            path,
            known: BTreeMap::new(),
            answer: None,
            new: false,
            untold: BTreeSet::new(),
        }
    }

    /// A fact's name and value.
    pub fn get(&mut self, fact: Fact) -> Result<(String, String)> {
        let name = name(fact);
        if let Some(value) = self.known.get(&name) {
            return Ok((name, value.clone()));
        }
        let value = match fact {
            Fact::Cpu => host::cpu(),
            Fact::Host => host::identity(),
            Fact::OnnxRuntime
            | Fact::TensorRt
            | Fact::TensorRtRtx
            | Fact::Libtorch
            | Fact::LibtorchCpu
            | Fact::LibtorchCuda => self.of_worker(&name)?,
        };
        self.known.insert(name.clone(), value.clone());
        Ok((name, value))
    }

    /// A fact's name, and its value unless it needs a worker that is missing or cannot tell it.
    pub fn try_get(&mut self, fact: Fact) -> Result<(String, Option<String>)> {
        let name = name(fact);
        if self.untold.contains(&name) {
            return Ok((name, None));
        }
        match self.get(fact) {
            Ok((name, value)) => Ok((name, Some(value))),
            Err(RunError::Worker(_) | RunError::Fact { .. }) => {
                self.untold.insert(name.clone());
                Ok((name, None))
            }
            Err(error) => Err(error),
        }
    }

    fn of_worker(&mut self, fact: &str) -> Result<String> {
        let worker = worker::locate()?;
        let mut asked = asked(&worker);
        // What TensorRT and libtorch run on.
        asked.push(host::driver());
        if self.wanted.contains(&Fact::TensorRt) {
            // Where it is looked for.
            asked.push(format!("PATH={}", std::env::var_os("PATH").unwrap_or_default().display()));
        }
        if self.answer.is_none() {
            let bytes = files::read(&self.path)?;
            let old: Option<Answer> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            self.answer = old.filter(|old| old.asked == asked && old.files_are_the_same());
        }
        if let Some(value) = self.answer.as_ref().and_then(|answer| answer.facts.get(fact)) {
            return Ok(value.clone());
        }
        let mut names: BTreeSet<String> = self.wanted.iter().copied().map(name).collect();
        names.insert(fact.to_owned());
        names.extend(self.answer.iter().flat_map(|answer| answer.facts.keys().cloned()));
        for native in [Fact::Cpu, Fact::Host] {
            names.remove(&name(native));
        }
        let answer = ask(&worker, asked, &names, fact)?;
        let value = answer.facts.get(fact).cloned();
        self.answer = Some(answer);
        self.new = true;
        value.ok_or_else(|| RunError::Fact {
            fact: fact.to_owned(),
            reason: "it left the fact out".to_owned(),
        })
    }

    /// Remembers what the worker said.
    pub fn save(&mut self) -> Result<()> {
        if let Some(answer) = self.answer.as_ref().filter(|_| std::mem::take(&mut self.new)) {
            let json = serde_json::to_vec_pretty(answer).expect("facts serialise to JSON");
            files::publish(&self.path, &json)?;
        }
        Ok(())
    }
}

impl Answer {
    fn files_are_the_same(&self) -> bool {
        self.files.iter().all(|stamped| {
            let path = stamped.rsplitn(3, ' ').nth(2).unwrap_or_default();
            stamp(Path::new(path)) == *stamped
        })
    }
}

fn ask(worker: &Path, asked: Vec<String>, names: &BTreeSet<String>, fact: &str) -> Result<Answer> {
    let broken = |reason: String| WorkerError::Broken { path: worker.to_path_buf(), reason };
    let mut command = Command::new(worker);
    command.arg("facts").args(names);
    let answer = answer::of(command, PATIENCE).map_err(|error| broken(error.to_string()))?;
    let said = String::from_utf8_lossy(&answer.error).trim().replace('\n', "; ");
    let Ok(printed) = serde_json::from_slice::<Printed>(&answer.output) else {
        return Err(broken(format!("`facts` {}. {said}", answer.ending)).into());
    };
    if !printed.facts.contains_key(fact) {
        return Err(RunError::Fact { fact: fact.to_owned(), reason: said });
    }
    let files = printed.files.iter().map(|path| stamp(path)).collect();
    Ok(Answer { asked, files, facts: printed.facts })
}

/// What decides the worker's answer before it is asked.
fn asked(worker: &Path) -> Vec<String> {
    let variable = |name: &&str| {
        let value = std::env::var_os(name).unwrap_or_default();
        format!("{name}={}", value.display())
    };
    std::iter::once(stamp(worker)).chain(VARIABLES.iter().map(variable)).collect()
}

/// A file as it is now: path, size and time of modification, nanoseconds.
fn stamp(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(file) => {
            let time = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
            format!("{} {} {time}", path.display(), file.len())
        }
        Err(_) => format!("{} - -", path.display()),
    }
}

/// The fact's name in keys and on the worker's command line.
pub(super) fn name(fact: Fact) -> String {
    let name = serde_json::to_value(fact).expect("a fact is a word");
    name.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_as_long_as_its_files_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib with space.so");
        std::fs::write(&library, "one").unwrap();
        let answer = Answer { files: vec![stamp(&library)], ..Answer::default() };
        assert!(answer.files_are_the_same());
        std::fs::write(&library, "three").unwrap();
        assert!(!answer.files_are_the_same());
        std::fs::remove_file(&library).unwrap();
        assert!(!answer.files_are_the_same());
    }
}
