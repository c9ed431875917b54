//! `qpipe check`.

use super::{Exit, PipelineArgs};

/// Checks a pipeline file and shows all its mistakes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Does it.
pub fn run(args: &Args) -> Exit {
    eprintln!("qpipe check {}: not in this version", args.pipeline.file.display());
    Exit::Bug
}
