//! `qpipe init`.

use super::Exit;

/// Writes a commented starter pipeline.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Does it.
pub fn run(_args: &Args) -> Exit {
    eprintln!("qpipe init: not in this version");
    Exit::Bug
}
