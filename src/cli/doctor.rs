//! `qpipe doctor`.

use super::Exit;

/// Lists what qpipe needs: each component, its version, where it was found and how to get it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(args: &Args) -> Exit {
    eprintln!("qpipe doctor: not in this version (json: {})", args.json);
    Exit::Bug
}
