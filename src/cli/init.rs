//! `qpipe init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use super::Exit;

/// Writes a commented starter pipeline.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write; a folder gets `pipeline.toml`. Nothing is overwritten.
    #[arg(value_name = "PATH", default_value = "pipeline.toml")]
    path: PathBuf,
}

/// The starter pipeline.
const STARTER: &str = include_str!("starter.toml");

/// Does it.
pub fn run(args: &Args) -> Exit {
    let path = if args.path.is_dir() { args.path.join("pipeline.toml") } else { args.path.clone() };
    let shown = path.display();
    let written = OpenOptions::new().write(true).create_new(true).open(&path);
    match written.and_then(|mut file| file.write_all(STARTER.as_bytes())) {
        Ok(()) => {
            // A reader that is gone needs no answer.
            let _ = writeln!(
                std::io::stdout(),
                "{shown} is written. Put your data's paths into it, then:\n\n  \
                 qpipe check {shown}\n  qpipe plan {shown}\n  qpipe run {shown}"
            );
            Exit::Success
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            eprintln!("qpipe init: {shown} exists already; name another file, or remove it");
            Exit::Usage
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("qpipe init: the folder of {shown} does not exist; create it first");
            Exit::Usage
        }
        Err(error) => {
            eprintln!("qpipe init: cannot write {shown}: {error}");
            Exit::Machine
        }
    }
}
