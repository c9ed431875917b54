//! Facts of the machine for cache keys. Those of libraries only the worker knows; it takes half a
//! second to start, so its answers are remembered as long as the files they came from are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::gpus::{self, View};
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
    "QPIPE_DEVICE",
    "CUDA_VISIBLE_DEVICES",
];

/// How long the worker may take to tell facts: it opens libraries, from a slow disk at worst.
const PATIENCE: Duration = Duration::from_secs(120);

/// Facts of the machine, found when they are asked for.
#[derive(Debug)]
pub struct Facts {
    wanted: BTreeSet<Question>,
    path: PathBuf,
    known: BTreeMap<Question, String>,
    /// What the worker said this time, by what it saw of the GPUs.
    answers: BTreeMap<Option<String>, Answer>,
    new: bool,
    /// Facts that were asked for in vain. That is never written: what is missing may come.
    untold: BTreeMap<Question, Untold>,
}

/// A question to the worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    /// `CUDA_VISIBLE_DEVICES` of who is asked; `None`: as it is here.
    visible: Option<String>,
    /// The fact's name, and the GPU that is meant where it is not the first: `libtorch-cuda:1`.
    name: String,
}

impl Question {
    fn new(fact: Fact, view: &View) -> Self {
        let name = name(fact);
        match fact {
            Fact::LibtorchCuda if view.gpu > 0 => {
                Self { visible: view.visible.clone(), name: format!("{name}:{}", view.gpu) }
            }
            Fact::LibtorchCuda | Fact::Libtorch | Fact::TensorRt | Fact::NvidiaGpu => {
                Self { visible: view.visible.clone(), name }
            }
            // No GPU changes them: the worker is not asked again for each view.
            Fact::Cpu | Fact::Host | Fact::OnnxRuntime | Fact::TensorRtRtx | Fact::LibtorchCpu => {
                Self { visible: None, name }
            }
        }
    }
}

/// Answers that are remembered: one for each machine, set of variables and view of the GPUs that had its turn last.
const REMEMBERED: usize = 16;

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
    /// The worker's file and [`VARIABLES`], as it saw them.
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
    #[serde(default)]
    missing: BTreeMap<String, Said>,
}

/// Why the worker cannot tell a fact.
#[derive(Deserialize)]
struct Said {
    message: String,
    #[serde(default)]
    help: Option<String>,
}

impl Facts {
    /// `wanted`: all facts that the run may ask for, so that the worker is asked once for each view.
    pub fn new(cache: &Cache, wanted: impl IntoIterator<Item = (Fact, View)>) -> Self {
        let wanted = wanted.into_iter().filter(|(fact, _)| !NATIVE.contains(fact));
        Self {
            wanted: wanted.map(|(fact, view)| Question::new(fact, &view)).collect(),
            path: cache.place("facts.json"),
            known: BTreeMap::new(),
            answers: BTreeMap::new(),
            new: false,
            untold: BTreeMap::new(),
        }
    }

    /// A fact's value, as a stage with this view of the GPUs finds it, or why it is not known. What could not be told is not asked for again
    /// until [`Facts::forget`].
    ///
    /// # Errors
    ///
    /// Of the cache alone.
    pub fn get(&mut self, fact: Fact, view: &View) -> Result<std::result::Result<String, Untold>> {
        let question = Question::new(fact, view);
        if let Some(value) = self.known.get(&question) {
            return Ok(Ok(value.clone()));
        }
        if let Some(untold) = self.untold.get(&question) {
            return Ok(Err(untold.clone()));
        }
        let told = match fact {
            Fact::Cpu => Ok(host::cpu()),
            Fact::Host => Ok(host::identity()),
            Fact::OnnxRuntime
            | Fact::TensorRt
            | Fact::TensorRtRtx
            | Fact::NvidiaGpu
            | Fact::Libtorch
            | Fact::LibtorchCpu
            | Fact::LibtorchCuda => self.of_worker(&question)?,
        };
        match &told {
            Ok(value) => drop(self.known.insert(question, value.clone())),
            Err(untold) => drop(self.untold.insert(question, untold.clone())),
        }
        Ok(told)
    }

    /// Why a fact is not known, as far as that came out without asking for it.
    pub fn untold(&self, fact: Fact, view: &View) -> Option<&Untold> {
        self.untold.get(&Question::new(fact, view))
    }

    /// What could not be told is asked for again: it may have been installed meanwhile.
    pub fn forget(&mut self) {
        self.untold.clear();
    }

    fn of_worker(&mut self, question: &Question) -> Result<std::result::Result<String, Untold>> {
        let worker = match worker::locate() {
            Ok(worker) => worker,
            Err(error) => return Ok(Err(Untold::Worker(error))),
        };
        let visible = &question.visible;
        let same = |other: &&Question| other.visible == *visible;
        let mut names: BTreeSet<String> =
            self.wanted.iter().filter(same).map(|wanted| wanted.name.clone()).collect();
        names.insert(question.name.clone());
        let mut asked = asked(&worker, visible.as_deref());
        // What TensorRT and libtorch run on.
        asked.push(host::driver());
        if names.contains(&name(Fact::TensorRt)) {
            // Where it is looked for.
            asked.push(format!("PATH={}", std::env::var_os("PATH").unwrap_or_default().display()));
        }
        if !self.answers.contains_key(visible)
            && let Some(old) = self.remembered()?.into_iter().find(|old| old.asked == asked)
            && old.files_are_the_same()
        {
            self.answers.insert(visible.clone(), old);
        }
        let answer = self.answers.get(visible);
        if let Some(value) = answer.and_then(|answer| answer.facts.get(&question.name)) {
            return Ok(Ok(value.clone()));
        }
        names.extend(answer.iter().flat_map(|answer| answer.facts.keys().cloned()));
        let (answer, untold) = match ask(&worker, asked, &names, visible.as_deref()) {
            Ok(told) => told,
            Err(error) => return Ok(Err(Untold::Worker(error))),
        };
        let told = match (answer.facts.get(&question.name), untold.get(&question.name)) {
            (Some(value), _) => Ok(value.clone()),
            (None, untold) => Err(untold.cloned().unwrap_or_else(Untold::left_out)),
        };
        // What else is missing was said in the same breath.
        let of = |name| Question { visible: visible.clone(), name };
        self.untold.extend(untold.into_iter().map(|(name, why)| (of(name), why)));
        self.answers.insert(visible.clone(), answer);
        self.new = true;
        Ok(told)
    }

    /// What the worker said in other runs, the newest first.
    fn remembered(&self) -> Result<Vec<Answer>> {
        let bytes = files::read(&self.path)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Remembers what the worker said.
    pub fn save(&mut self) -> Result<()> {
        if std::mem::take(&mut self.new) {
            let mut answers: Vec<Answer> = self.answers.values().cloned().collect();
            let old = self.remembered()?.into_iter();
            let old = old.filter(|old| answers.iter().all(|new| new.asked != old.asked));
            answers.extend(old.collect::<Vec<_>>());
            answers.truncate(REMEMBERED);
            let json = serde_json::to_vec_pretty(&answers).expect("facts serialise to JSON");
            files::publish(&self.path, &json)?;
        }
        Ok(())
    }
}

/// Facts that need no worker.
const NATIVE: [Fact; 2] = [Fact::Cpu, Fact::Host];

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
    visible: Option<&str>,
) -> Result<(Answer, BTreeMap<String, Untold>), WorkerError> {
    let broken = |reason: String| WorkerError::Broken { path: worker.to_path_buf(), reason };
    let mut command = Command::new(worker);
    command.arg("facts").args(names);
    command.envs(visible.into_iter().flat_map(gpus::variables));
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
    Ok((Answer { asked, files, facts: printed.facts }, untold))
}

impl Untold {
    fn left_out() -> Self {
        Self::Missing { reason: "the worker says nothing of it".to_owned(), help: None }
    }
}

/// What decides the answer of a worker that sees these GPUs, before it is asked.
fn asked(worker: &Path, visible: Option<&str>) -> Vec<String> {
    let seen = visible.map(gpus::variables);
    let variable = |name: &&str| {
        if let Some((_, value)) = seen.iter().flatten().find(|(seen, _)| seen == name) {
            return format!("{name}={value}");
        }
        // None at all is not the same as an empty one, which hides all GPUs.
        match std::env::var_os(name) {
            Some(value) => format!("{name}={}", value.display()),
            None => format!("no {name}"),
        }
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
