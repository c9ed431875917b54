//! Facts of the machine for cache keys. Those of libraries only the worker knows; it takes half a
//! second to start, so its answers are remembered as long as the files they came from are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Result;
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
    /// Facts that were asked for in vain, by name. That is never written: what is missing may come.
    untold: BTreeMap<String, Untold>,
}

/// Why a fact is not known.
#[derive(Clone, Debug)]
pub enum Untold {
    /// There is no worker to ask.
    Worker(WorkerError),
    /// What it is a fact of is not there, or cannot be used.
    Missing {
        /// What the worker said.
        reason: String,
        /// What to do about it.
        help: Option<String>,
    },
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
    /// GPUs that libtorch can use; `None` where no stage asked for one.
    #[serde(default)]
    gpus: Option<usize>,
}

/// What `qpipe-worker facts` prints.
#[derive(Deserialize)]
struct Printed {
    facts: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<PathBuf>,
    #[serde(default)]
    missing: BTreeMap<String, Said>,
    #[serde(default)]
    gpus: Option<usize>,
}

/// Why the worker cannot tell a fact.
#[derive(Deserialize)]
struct Said {
    message: String,
    #[serde(default)]
    help: Option<String>,
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
            untold: BTreeMap::new(),
        }
    }

    /// A fact's value, or why it is not known. What could not be told is not asked for again until [`Facts::forget`].
    ///
    /// # Errors
    ///
    /// Of the cache alone.
    pub fn get(&mut self, fact: Fact) -> Result<std::result::Result<String, Untold>> {
        let name = name(fact);
        if let Some(value) = self.known.get(&name) {
            return Ok(Ok(value.clone()));
        }
        if let Some(untold) = self.untold.get(&name) {
            return Ok(Err(untold.clone()));
        }
        let told = match fact {
            Fact::Cpu => Ok(host::cpu()),
            Fact::Host => Ok(host::identity()),
            Fact::OnnxRuntime
            | Fact::TensorRt
            | Fact::TensorRtRtx
            | Fact::Libtorch
            | Fact::LibtorchCpu
            | Fact::LibtorchCuda => self.of_worker(&name)?,
        };
        match &told {
            Ok(value) => drop(self.known.insert(name, value.clone())),
            Err(untold) => drop(self.untold.insert(name, untold.clone())),
        }
        Ok(told)
    }

    /// GPUs that libtorch can use, as far as the worker was asked for the fact of one.
    pub fn gpus(&self) -> Option<usize> {
        self.answer.as_ref()?.gpus
    }

    /// Why a fact is not known, as far as that came out without asking for it.
    pub fn untold(&self, fact: Fact) -> Option<&Untold> {
        self.untold.get(&name(fact))
    }

    /// What could not be told is asked for again: it may have been installed meanwhile.
    pub fn forget(&mut self) {
        self.untold.clear();
    }

    fn of_worker(&mut self, fact: &str) -> Result<std::result::Result<String, Untold>> {
        let worker = match worker::locate() {
            Ok(worker) => worker,
            Err(error) => return Ok(Err(Untold::Worker(error))),
        };
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
            return Ok(Ok(value.clone()));
        }
        let mut names: BTreeSet<String> = self.wanted.iter().copied().map(name).collect();
        names.insert(fact.to_owned());
        names.extend(self.answer.iter().flat_map(|answer| answer.facts.keys().cloned()));
        for native in [Fact::Cpu, Fact::Host] {
            names.remove(&name(native));
        }
        let (answer, untold) = match ask(&worker, asked, &names) {
            Ok(told) => told,
            Err(error) => return Ok(Err(Untold::Worker(error))),
        };
        let told = match (answer.facts.get(fact), untold.get(fact)) {
            (Some(value), _) => Ok(value.clone()),
            (None, untold) => Err(untold.cloned().unwrap_or_else(Untold::left_out)),
        };
        // What else is missing was said in the same breath.
        self.untold.extend(untold);
        self.answer = Some(answer);
        self.new = true;
        Ok(told)
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

/// The worker's answer, and why it cannot tell what is not in it.
fn ask(
    worker: &Path,
    asked: Vec<String>,
    names: &BTreeSet<String>,
) -> Result<(Answer, BTreeMap<String, Untold>), WorkerError> {
    let broken = |reason: String| WorkerError::Broken { path: worker.to_path_buf(), reason };
    let mut command = Command::new(worker);
    command.arg("facts").args(names);
    let answer = answer::of(command, PATIENCE).map_err(|error| broken(error.to_string()))?;
    let Ok(mut printed) = serde_json::from_slice::<Printed>(&answer.output) else {
        let said = String::from_utf8_lossy(&answer.error).trim().replace('\n', "; ");
        return Err(broken(format!("`facts` {}. {said}", answer.ending)));
    };
    let mut untold = BTreeMap::new();
    for name in names.iter().filter(|name| !printed.facts.contains_key(*name)) {
        let why = match printed.missing.remove(name) {
            Some(Said { message: reason, help }) => Untold::Missing { reason, help },
            None => Untold::left_out(),
        };
        untold.insert(name.clone(), why);
    }
    let files = printed.files.iter().map(|path| stamp(path)).collect();
    Ok((Answer { asked, files, facts: printed.facts, gpus: printed.gpus }, untold))
}

impl Untold {
    fn left_out() -> Self {
        Self::Missing { reason: "the worker says nothing of it".to_owned(), help: None }
    }
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
