//! `qpipe model`: the worker looks at models, since only it reads them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Subcommand;

use super::{Exit, fail};
use crate::exec::{stderr, worker};

/// Looks into ONNX files.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows what is in a model: inputs, outputs, operators, parameters; and whether it can be executed, trained
    /// and quantized, and if not, why not.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// The ONNX file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Shows in what two models differ: nodes, attributes, initializers, inputs, outputs, operator sets, metadata.
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// An ONNX file.
        #[arg(value_name = "FILE")]
        from: PathBuf,
        /// The one that is compared with it.
        #[arg(value_name = "FILE")]
        to: PathBuf,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Ends with code 10 where they differ.
        #[arg(long)]
        exit_code: bool,
    },
    /// Looks at a quantized model, ours or a stranger's: what is wrong with its Q/DQ pairs or costs time or accuracy, which quantized operators
    /// the runtime cannot read, why, and what to do.
    #[command(after_help = LINT_EXAMPLES)]
    Lint {
        /// The ONNX file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Runtime whose rules hold: `tensorrt`, `tensorrt-rtx` or `onnxruntime`. Default: the one that the file names, else all.
        #[arg(long, value_name = "RUNTIME")]
        target: Option<String>,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Ends with code 10 where something is found.
        #[arg(long)]
        exit_code: bool,
    },
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe model inspect model.onnx
  qpipe model diff float.onnx int8.onnx
  qpipe model lint int8.onnx";

const INSPECT_EXAMPLES: &str = "\
Examples:
  qpipe model inspect model.onnx
  qpipe model inspect model.onnx --json";

const DIFF_EXAMPLES: &str = "\
Examples:
  qpipe model diff float.onnx int8.onnx
  qpipe model diff float.onnx int8.onnx --json
  qpipe model diff before.onnx after.onnx --exit-code   # 10: they differ";

const LINT_EXAMPLES: &str = "\
Examples:
  qpipe model lint int8.onnx
  qpipe model lint int8.onnx --target tensorrt --json
  qpipe model lint int8.onnx --exit-code                # 10: something is found";

/// Does it: what the worker prints is printed, and how it ends is how this ends.
pub fn run(args: &Args) -> Exit {
    let (words, json, exit_code): (Vec<OsString>, bool, bool) = match &args.command {
        Action::Inspect { file, json } => (vec!["inspect".into(), file.into()], *json, false),
        Action::Diff { from, to, json, exit_code } => {
            (vec!["diff".into(), from.into(), to.into()], *json, *exit_code)
        }
        Action::Lint { file, target, json, exit_code } => {
            let mut words = vec!["lint".into(), file.into()];
            if let Some(target) = target {
                words.extend(["--target".into(), target.into()]);
            }
            (words, *json, *exit_code)
        }
    };
    let path = match worker::locate() {
        Ok(path) => path,
        Err(error) => return fail::show(&error, Exit::Machine),
    };
    let mut command = Command::new(&path);
    command.arg("model").args(words).stdin(Stdio::null());
    if json {
        command.arg("--json");
    }
    if exit_code {
        command.arg("--exit-code");
    }
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => {
            stderr::line(format_args!("error: {} does not start: {error}", path.display()));
            return Exit::Machine;
        }
    };
    let known = [Exit::Success, Exit::StageFailed, Exit::Usage, Exit::Machine, Exit::Pending];
    let same = known.into_iter().find(|exit| status.code() == Some(*exit as i32));
    // 127: a library that it needs is not there, as the system has said already.
    let missing = (status.code() == Some(127)).then_some(Exit::Machine);
    same.or(missing).unwrap_or_else(|| {
        stderr::line(format_args!("error: {} ended with {status}", path.display()));
        Exit::Bug
    })
}
