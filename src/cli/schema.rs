//! `qpipe schema`.

use super::Exit;
use crate::config;
use crate::exec::stdout;

/// Prints the JSON Schema of pipeline files, by which editors complete and check them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe schema > pipeline.schema.json   # beside a pipeline whose first line is #:schema ./pipeline.schema.json";

/// Does it.
pub fn run() -> Exit {
    stdout::write(config::editor_schema().as_bytes());
    Exit::Success
}
