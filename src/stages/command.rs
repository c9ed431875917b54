//! `command`: any program with declared inputs and outputs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Input, InputPath, Output, PortType, Problem, Ref, Runs};
use super::inside::is_inside;

/// Runs a program of any language as a stage like the others.
///
/// It runs in the pipeline file's folder with `QPIPE_OUT` (folder for outputs), `QPIPE_IN_NAME` (path of
/// each input) and `QPIPE_OUT_NAME` (path of each output; NAME in capitals, `-` and `.` as `_`) in
/// its environment. Lines that it prints go to the stage's log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments; a string is given to `sh -c`.
    pub run: Run,
    /// Outputs of other stages: name → reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Ref>,
    /// Files and folders that it reads, scripts too: name → path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, InputPath>,
    /// Environment variables set for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it makes: name → output.
    pub outputs: BTreeMap<String, CommandOutput>,
}

/// A command line.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Run {
    /// For `sh -c`.
    Shell(String),
    /// Program and arguments, no shell.
    Arguments(#[schemars(length(min = 1))] Vec<String>),
}

/// An output of a command: its file name, or file name and type.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CommandOutput {
    /// File name below `QPIPE_OUT`.
    File(String),
    /// With the type that other stages check.
    Typed(TypedOutput),
}

/// A typed output of a command.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypedOutput {
    /// File name below `QPIPE_OUT`.
    pub file: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: OutputType,
}

/// What a command's output may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputType {
    /// An ONNX model.
    Model,
    /// Ranges, JSON.
    Ranges,
    /// A JSON object of figures, shown in the report.
    Metrics,
    /// Anything.
    File,
}

impl CommandOutput {
    fn file(&self) -> &str {
        match self {
            Self::File(file) | Self::Typed(TypedOutput { file, .. }) => file,
        }
    }

    fn kind(&self) -> PortType {
        match self {
            Self::File(_) => PortType::File,
            Self::Typed(typed) => match typed.kind {
                OutputType::Model => PortType::Model,
                OutputType::Ranges => PortType::Ranges,
                OutputType::Metrics => PortType::Metrics,
                OutputType::File => PortType::File,
            },
        }
    }
}

/// A command's input takes the output of any stage.
const ANY: &[PortType] =
    &[PortType::Model, PortType::Ranges, PortType::Engine, PortType::Metrics, PortType::File];

impl Contract for Command {
    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "any program with declared inputs and outputs";
    const RUNS: Runs = Runs::Program;

    fn inputs(&self) -> Vec<Input> {
        let references = self.inputs.iter().map(|(name, reference)| Input {
            port: name.clone(),
            field: vec!["inputs".to_owned(), name.clone()],
            ..Input::reference(name, reference, ANY)
        });
        let files = self.files.iter().map(|(name, path)| Input {
            port: name.clone(),
            field: vec!["files".to_owned(), name.clone()],
            ..Input::path(name, name, path)
        });
        references.chain(files).collect()
    }

    fn outputs(&self) -> Vec<Output> {
        let output = |(port, output): (&String, &CommandOutput)| {
            Output::new(port, output.kind(), output.file())
        };
        self.outputs.iter().map(output).collect()
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.outputs.is_empty() {
            problems.push(
                Problem::at("outputs", "a command without outputs has nothing to cache")
                    .help("declare what it makes: outputs = { result = \"result.txt\" }"),
            );
        }
        for name in self.inputs.keys().filter(|name| self.files.contains_key(*name)) {
            problems.push(Problem::at(
                &format!("files.{name}"),
                format!("`{name}` stands in both `inputs` and `files`"),
            ));
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (port, output) in &self.outputs {
            let file = output.file();
            if !is_inside(file) {
                problems.push(
                    Problem::at(
                        &format!("outputs.{port}"),
                        format!("\"{file}\" is not a file name below the stage's output folder"),
                    )
                    .help(
                        "write a plain relative name; the program finds the folder in $QPIPE_OUT",
                    ),
                );
            }
            if let Some(other) = seen.insert(file, port) {
                problems.push(Problem::at(
                    &format!("outputs.{port}"),
                    format!("duplicate output: `{other}` and `{port}` both name \"{file}\""),
                ));
            }
            let around = self.outputs.iter().find(|(_, other)| {
                file.strip_prefix(other.file()).is_some_and(|rest| rest.starts_with('/'))
            });
            if let Some((other, folder)) = around {
                problems.push(Problem::at(
                    &format!("outputs.{port}"),
                    format!("\"{file}\" lies in output `{other}`, \"{}\"", folder.file()),
                ));
            }
        }
        problems
    }
}
