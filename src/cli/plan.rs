//! `qpipe plan`.

use super::{Exit, PipelineArgs};

/// Shows what a run would do, and why, without doing it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Does it.
pub fn run(args: &Args) -> Exit {
    eprintln!("qpipe plan {}: not in this version", args.pipeline.file.display());
    Exit::Bug
}
