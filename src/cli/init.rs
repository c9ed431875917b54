//! `qpipe init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::Exit;
use crate::config;
use crate::exec::{stderr, stdout};

/// Writes a commented starter pipeline, and the schema by which editors complete and check it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file to write; a folder gets `pipeline.toml`. Nothing is overwritten.
    #[arg(value_name = "PATH", default_value = "pipeline.toml")]
    path: PathBuf,

    /// Writes neither `pipeline.schema.json` beside it nor the line that names it.
    #[arg(long)]
    no_schema: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe init                          # pipeline.toml here
  qpipe init pipelines/mine.toml
  qpipe init mine.toml --no-schema";

/// The schema's name beside the pipeline.
const SCHEMA: &str = "pipeline.schema.json";

/// The starter pipeline.
const STARTER: &str = include_str!("starter.toml");

/// Does it.
pub fn run(args: &Args) -> Exit {
    // One with a slash at its end is meant as a folder.
    let folder = args.path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if folder && !args.path.is_dir() {
        let shown = args.path.display();
        stderr::line(format_args!(
            "qpipe init: the folder {shown} does not exist; create it first"
        ));
        return Exit::Usage;
    }
    let path = if args.path.is_dir() { args.path.join("pipeline.toml") } else { args.path.clone() };
    let shown = path.display();
    let written = OpenOptions::new().write(true).create_new(true).open(&path);
    let schema = (!args.no_schema).then(|| path.with_file_name(SCHEMA));
    // Taplo, which is in Even Better TOML, takes a path beside the file, also without a network.
    let line = schema.as_ref().map_or(String::new(), |_| format!("#:schema ./{SCHEMA}\n"));
    let text = format!("{line}{STARTER}");
    let write = |mut file: std::fs::File| {
        file.write_all(text.as_bytes())?;
        schema.as_deref().map_or(Ok(()), write_schema)
    };
    match written.and_then(write) {
        Ok(()) => {
            stdout::line(format_args!(
                "{shown} is written. Put your data's paths into it, then:\n\n  \
                 qpipe check {shown}\n  qpipe plan {shown}\n  qpipe run {shown}"
            ));
            Exit::Success
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            stderr::line(format_args!(
                "qpipe init: {shown} exists already; name another file, or remove it"
            ));
            Exit::Usage
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            stderr::line(format_args!(
                "qpipe init: the folder of {shown} does not exist; create it first"
            ));
            Exit::Usage
        }
        Err(error) => {
            stderr::line(format_args!("qpipe init: cannot write {shown}: {error}"));
            Exit::Machine
        }
    }
}

/// Writes the schema unless there is one: `qpipe schema` brings that up to date.
fn write_schema(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        file => file?.write_all(config::editor_schema().as_bytes()),
    }
}
