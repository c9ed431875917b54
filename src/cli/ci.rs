//! `qpipe ci`.

use super::run::{self, RunArgs};
use super::{Exit, accepted};
use crate::config::Pipeline;
use crate::exec::{Guarding, Review, RunError};

/// Runs what is not up to date, then holds the figures to the file's guards.
///
/// Each `[guards.NAME]` bounds a figure, against the lock file that was accepted last: the one in
/// git's HEAD, or without git the one that was there before the run. If a guard is broken, the lock
/// file is not written and the exit code is 5.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,

    #[command(flatten)]
    check: CheckArgs,
}

/// What figures are held to.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The lock file that was accepted: a file, or a revision of git. Default: HEAD.
    #[arg(long, value_name = "REV|FILE")]
    against: Option<String>,

    /// Writes the new lock file even if guards are broken: the new figures are the accepted ones
    /// from then on.
    #[arg(long, conflicts_with = "locked")]
    accept: bool,
}

impl CheckArgs {
    /// What a run is compared with.
    pub fn review(&self, pipeline: &Pipeline) -> Result<Review, RunError> {
        let guards = if self.accept { Guarding::Accept } else { Guarding::Hold };
        let found = accepted::find(pipeline, self.against.as_deref())?;
        Ok(Review { guards, ..found })
    }
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe ci p.toml
  qpipe ci p.toml --against origin/main       # of a pull request
  qpipe ci p.toml --locked --summary out.md   # nothing may change but by the machine
  qpipe ci p.toml --accept                    # the new figures are well";

/// Does it.
pub fn run(args: &Args) -> Exit {
    run::perform(&args.run, Some(&args.check))
}
