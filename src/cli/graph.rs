//! `qpipe graph`.

use super::{Exit, PipelineArgs};

/// Draws the pipeline's graph of stages.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Does it.
pub fn run(args: &Args) -> Exit {
    eprintln!("qpipe graph {}: not in this version", args.pipeline.file.display());
    Exit::Bug
}
