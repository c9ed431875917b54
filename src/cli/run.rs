//! `qpipe run`.

use super::{Exit, PipelineArgs};

/// Runs what is not up to date, and prints the table.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Does it.
pub fn run(args: &Args) -> Exit {
    eprintln!("qpipe run {}: not in this version", args.pipeline.file.display());
    Exit::Bug
}
