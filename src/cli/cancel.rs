//! `qpipe cancel`.

use super::pipeline_args::CacheArgs;
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::exec::{self, stdout};
use crate::plan::Plan;

/// Cancels a pipeline's jobs on the cluster, whichever run submitted them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    cache: CacheArgs,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe cancel p.toml";

/// Does it.
pub fn run(args: &Args) -> Exit {
    match cancel(args) {
        Ok(0) => {
            stdout::line(format_args!("no jobs are pending or running"));
            Exit::Success
        }
        Ok(jobs) => {
            stdout::line(format_args!("cancelled {jobs} job{}", if jobs == 1 { "" } else { "s" }));
            Exit::Success
        }
        Err(exit) => exit,
    }
}

fn cancel(args: &Args) -> Result<usize, Exit> {
    let pipeline = args.pipeline.load()?;
    let root = args.cache.root(&pipeline.folder);
    let cache = Cache::open(&root).map_err(|error| fail::run(error.into(), false))?;
    exec::cancel_jobs(&cache, &Plan::new(&pipeline)).map_err(|error| fail::run(error, false))
}
