//! What a stage kind promises to the planner: configuration, ports, version and machine facts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The default of a key that is on unless it is turned off.
pub(super) const fn yes() -> bool {
    true
}

/// Whether such a key is as by default, so that it need not be written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) const fn is_yes(value: &bool) -> bool {
    *value
}

/// Type of what flows through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// A labelled data set, from a `[data.NAME]` table.
    Data,
    /// An ONNX model, one file.
    Model,
    /// Calibrated ranges of a model's tensors, a JSON file.
    Ranges,
    /// A built inference engine, a directory with `engine.json` in it.
    Engine,
    /// Figures of a stage: a JSON object.
    Metrics,
    /// Anything else: a file or a directory.
    File,
}

impl PortType {
    /// The word that error messages and docs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Model => "model",
            Self::Ranges => "ranges",
            Self::Engine => "engine",
            Self::Metrics => "metrics",
            Self::File => "file",
        }
    }
}

/// An output of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Name within the stage; `stage.port` refers to it.
    pub port: String,
    /// What it holds.
    pub kind: PortType,
    /// File name below the stage's output folder, such as `model.onnx`.
    pub file: String,
}

impl Output {
    /// An output with the file name that its users expect.
    pub fn new(port: &str, kind: PortType, file: &str) -> Self {
        Self { port: port.to_owned(), kind, file: file.to_owned() }
    }
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `stage.port`, `stage[cell].port`, `stage` (its first port of a fitting type) or `data.name`.
    Reference(String),
    /// A file or directory of the user's, relative to the pipeline file.
    Path(String),
}

/// An input of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Name under which the worker finds it in [`crate::task::Task::inputs`].
    pub port: String,
    /// Where it stands in the stage's table, such as `["model", "weights"]`; an error points there.
    pub field: Vec<String>,
    /// Where it comes from.
    pub source: Source,
    /// What may be connected here.
    pub accepts: &'static [PortType],
}

/// Something wrong with a configuration that its schema cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key at fault, as a path below the table that was checked; empty: the table itself.
    pub field: Vec<String>,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What stands beside the caret; `here` where it is not given.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem at a dotted path such as `optimizer.lr`.
    pub fn at(field: &str, message: impl Into<String>) -> Self {
        let field = field.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { field, message: message.into(), label: None, help: None }
    }

    /// Sets what stands beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A fact of the machine that a stage's result depends on, and that so belongs to its cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Processor model, its count of cores and its instruction sets.
    Cpu,
    /// This machine and no other, even of the same model: for timings.
    Host,
    /// The ONNX Runtime library: its path's file name, size and version.
    OnnxRuntime,
    /// Version of the TensorRT that `trtexec` belongs to; name, compute capability and driver branch of the first GPU that the stage sees, which it uses.
    TensorRt,
    /// The TensorRT-RTX library's version.
    TensorRtRtx,
    /// Name, compute capability and driver branch of the first GPU that the stage sees, which runs an engine of TensorRT-RTX.
    NvidiaGpu,
    /// The libtorch that the worker is linked to, and the GPU that it computes on, where it chooses one itself.
    Libtorch,
    /// The same where a stage computes on the CPU, whatever GPUs there are.
    LibtorchCpu,
    /// The same where a stage asks for a GPU, by its number of those that it sees.
    LibtorchCuda,
}

impl Fact {
    /// What it is a fact of, in the words of `qpipe doctor`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Cpu => "the processor",
            Self::Host => "this machine",
            Self::OnnxRuntime => "ONNX Runtime",
            Self::TensorRt => "TensorRT (trtexec)",
            Self::TensorRtRtx => "TensorRT-RTX",
            Self::NvidiaGpu => "an NVIDIA GPU",
            Self::Libtorch | Self::LibtorchCpu => "libtorch",
            Self::LibtorchCuda => "libtorch on a GPU",
        }
    }
}

/// What a stage takes of the machine where its table does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// One processor.
    Light,
    /// All processors.
    Whole,
    /// The machine for itself: nothing runs beside it, so that its timings are right.
    Alone,
}

/// Who does the work of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// `qpipe-worker`, a process for each stage.
    Worker,
    /// The program that the stage names.
    Program,
    /// The runner itself, from recorded figures only.
    Runner,
}

/// The contract of a stage kind. The struct that implements it is the stage's configuration: its
/// fields are the keys of the TOML table, its doc comments their documentation, its JSON schema
/// what a file is checked against.
pub trait Contract: Serialize + DeserializeOwned + JsonSchema + std::fmt::Debug + 'static {
    /// The word after `kind =`.
    const NAME: &'static str;
    /// Raised whenever the same configuration and inputs would give another result.
    const VERSION: u32;
    /// One line for tables of kinds.
    const ABOUT: &'static str;
    /// Who does the work.
    const RUNS: Runs = Runs::Worker;
    /// What it takes of the machine where its table does not say.
    const DEMAND: Demand = Demand::Light;

    /// All inputs, in a stable order.
    fn inputs(&self) -> Vec<Input>;

    /// All outputs; the first is what `stage` alone refers to where its type fits.
    fn outputs(&self) -> Vec<Output>;

    /// Facts of the machine that the result depends on.
    fn facts(&self) -> Vec<Fact> {
        Vec::new()
    }

    /// What this one takes of the machine where its table does not say: [`Contract::DEMAND`] unless its configuration decides.
    fn demand(&self) -> Demand {
        Self::DEMAND
    }

    /// Rules between keys.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// A contract whose type is erased, so that the planner holds all stages alike.
pub trait Stage: std::fmt::Debug {
    /// All inputs, in a stable order.
    fn inputs(&self) -> Vec<Input>;
    /// All outputs.
    fn outputs(&self) -> Vec<Output>;
    /// Facts of the machine that the result depends on.
    fn facts(&self) -> Vec<Fact>;
    /// Rules between keys.
    fn check(&self) -> Vec<Problem>;
    /// What it takes of the machine where its table does not say.
    fn demand(&self) -> Demand;
    /// The semantic configuration: references and paths are replaced by a placeholder, since the
    /// digests of what they name stand beside it in the cache key.
    fn config(&self) -> serde_json::Value;
    /// The stage's own type, for the few kinds that the runner executes itself.
    fn as_any(&self) -> &dyn std::any::Any;
}

impl<C: Contract> Stage for C {
    fn inputs(&self) -> Vec<Input> {
        Contract::inputs(self)
    }

    fn outputs(&self) -> Vec<Output> {
        Contract::outputs(self)
    }

    fn facts(&self) -> Vec<Fact> {
        Contract::facts(self)
    }

    fn check(&self) -> Vec<Problem> {
        Contract::check(self)
    }

    fn demand(&self) -> Demand {
        Contract::demand(self)
    }

    fn config(&self) -> serde_json::Value {
        // Contracts are plain structs with string keys: serialising them cannot fail.
        serde_json::to_value(self).expect("a contract serialises to JSON")
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// One line of the table of kinds.
pub struct Kind {
    /// The word after `kind =`.
    pub name: &'static str,
    /// See [`Contract::VERSION`].
    pub version: u32,
    /// One line of documentation.
    pub about: &'static str,
    /// Who does the work.
    pub runs: Runs,
    /// See [`Contract::DEMAND`].
    pub demand: Demand,
    /// JSON schema of the configuration.
    pub schema: fn() -> schemars::Schema,
    /// Makes the stage from its table, keys that all kinds have taken out.
    pub parse: fn(toml::Value) -> Result<Box<dyn Stage>, toml::de::Error>,
}

impl Kind {
    /// The line for contract `C`.
    pub const fn of<C: Contract>() -> Self {
        Self {
            name: C::NAME,
            version: C::VERSION,
            about: C::ABOUT,
            runs: C::RUNS,
            demand: C::DEMAND,
            schema: || schemars::schema_for!(C),
            parse: |table| Ok(Box::new(C::deserialize(table)?)),
        }
    }
}

/// A reference to an output of another stage or to a data set, as written in the file.
///
/// It serialises to a placeholder: names do not matter to a result, only what they stand for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ref(pub String);

/// A path of the user's, relative to the pipeline file. It serialises to a placeholder too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct InputPath(pub String);

/// What a reference or a path is in a semantic configuration.
pub const PLACEHOLDER: &str = "@input";

impl Serialize for Ref {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(PLACEHOLDER)
    }
}

impl Serialize for InputPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(PLACEHOLDER)
    }
}

impl Input {
    /// An input from a reference; `field` is its key in the stage's table and its port's name.
    pub fn reference(field: &str, reference: &Ref, accepts: &'static [PortType]) -> Self {
        Self {
            port: field.to_owned(),
            field: vec![field.to_owned()],
            source: Source::Reference(reference.0.clone()),
            accepts,
        }
    }

    /// An input from a path; `port` and the dotted `field` may differ.
    pub fn path(port: &str, field: &str, path: &InputPath) -> Self {
        Self {
            port: port.to_owned(),
            field: field.split('.').map(str::to_owned).collect(),
            source: Source::Path(path.0.clone()),
            accepts: &[PortType::File],
        }
    }
}

/// Figures of a stage, sorted by name.
pub type Metrics = BTreeMap<String, serde_json::Value>;
