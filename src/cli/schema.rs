//! `qpipe schema`.

use std::io::Write as _;

use super::Exit;
use crate::config;

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
    // A reader that is gone needs no answer.
    let _ = std::io::stdout().write_all(config::editor_schema().as_bytes());
    Exit::Success
}
