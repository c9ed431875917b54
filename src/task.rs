//! What the runner and the worker say to each other: a task file in, event lines out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::stages::contract::Metrics;
use crate::stages::data::DataSpec;

/// Raised with every change of [`Task`] or [`Event`] that an older partner would misread.
pub const PROTOCOL: u32 = 1;

/// One stage to run: the JSON file that `qpipe-worker run FILE` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// [`PROTOCOL`] of the runner.
    pub protocol: u32,
    /// Version of the runner; the worker's must be the same.
    pub version: String,
    /// The stage's name in the plan, such as `onnx[fp32,1]`.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Its semantic configuration: [`crate::stages::contract::Stage::config`].
    pub config: serde_json::Value,
    /// What stands at each input port.
    pub inputs: BTreeMap<String, TaskInput>,
    /// Where each output goes; the folders exist, the files do not.
    pub outputs: BTreeMap<String, PathBuf>,
    /// An empty folder for anything else; removed afterwards.
    pub scratch: PathBuf,
    /// A folder that outlives a killed run of the same cache key: a training continues from what
    /// it finds there. Empty the first time.
    pub checkpoints: PathBuf,
    /// Seed of all randomness of this stage.
    pub seed: u64,
    /// CPU threads that it may use.
    pub threads: usize,
}

/// What stands at an input port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum TaskInput {
    /// A file or directory: another stage's output in the cache, or the user's own.
    Path {
        /// Absolute.
        path: PathBuf,
    },
    /// A data set.
    Data {
        /// Its description; `path` and `labels` in it are placeholders.
        spec: DataSpec,
        /// Absolute paths of its ports `path` and `labels`.
        paths: BTreeMap<String, PathBuf>,
    },
}

/// A line that the worker prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How far it is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What a unit is, such as `images`.
        unit: String,
        /// What is being done, such as `epoch 2/5`.
        message: String,
    },
    /// A line for the log, shown with the stage.
    Log {
        /// Its text.
        message: String,
    },
    /// Something that the user should know although the stage goes on.
    Warning {
        /// Its text.
        message: String,
        /// The key of the stage's table that it is about, such as `ranges`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Box<str>>,
    },
    /// The stage is done and its outputs are written.
    Done {
        /// Its figures.
        metrics: Metrics,
    },
    /// The stage failed.
    Failed {
        /// The worker's error.
        failure: Failure,
    },
}

/// What the worker says of a model that a stage trains, calibrates, feeds images to or builds an engine of: `qpipe-worker model trainable FILE…
/// calibratable FILE… buildable FILE… feedable FILE…` prints a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsableModel {
    /// What was asked: one of these, or the same of what `export-onnx` makes of the file (`trainable-once-exported`).
    pub word: String,
    /// The file, as it was named.
    pub file: PathBuf,
    /// Why it cannot be.
    pub refused: Option<Failure>,
}

/// Why a stage failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub blame: Blame,
    /// What happened and where: file, index or node are named.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The key of the stage's table that it is about, such as `exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The pipeline, the data or the model: the user can mend it.
    User,
    /// The machine: a missing library, a full disk, too little memory.
    Machine,
    /// The program itself.
    Bug,
}

/// A component that the worker needs: a line of `qpipe-worker doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version, where found.
    pub version: Option<String>,
    /// Where it was found.
    pub path: Option<PathBuf>,
    /// Whether stages need it (`false`: optional).
    pub required: bool,
    /// How to get it, or why it is not usable.
    pub help: String,
}
