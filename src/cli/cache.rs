//! `qpipe cache`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use indicatif::BinaryBytes;

use super::pipeline_args::CacheArgs;
use super::{Exit, fail, remote};
use crate::cache::{Cache, CacheError, Keep, LockFile};
use crate::exec::{stderr, stdout};
use crate::stages::quantity;

/// Looks after the artifact cache.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    cache: CacheArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows where the cache is and how much is in it.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Removes what no lock file and no recent run needs.
    Gc {
        /// Keeps what these pipeline files' lock files need too, besides those of all pipelines
        /// that ran with this cache.
        #[arg(value_name = "FILE")]
        pipelines: Vec<PathBuf>,
        /// Keeps what was used within so many days.
        #[arg(long, value_name = "N", default_value_t = 7)]
        keep_days: u64,
        /// Keeps of that, latest first, only what fits into so much in all, such as `20GB`.
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// Only says what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Reads everything and compares it with its digest.
    Verify {
        /// Removes what is damaged, so that the next run makes it anew.
        #[arg(long)]
        repair: bool,
    },
    /// Puts what a pipeline's lock file names into the remote cache.
    Push(remote::Args),
    /// Takes what a pipeline's lock file names from the remote cache.
    Pull(remote::Args),
    /// Removes everything but the state of jobs of a cluster.
    Clear {
        /// Without this, nothing is removed.
        #[arg(long)]
        yes: bool,
    },
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe cache status
  qpipe cache gc --dry-run
  qpipe cache verify --repair";

/// Does it.
pub fn run(args: &Args) -> Exit {
    match &args.command {
        Command::Push(what) => return remote::push(what, &args.cache),
        Command::Pull(what) => return remote::pull(what, &args.cache),
        _ => {}
    }
    let here = std::env::current_dir().unwrap_or_default();
    let cache = match Cache::at(&args.cache.root(&here)) {
        Ok(cache) => cache,
        Err(error) => return shown(error),
    };
    if !cache.root().is_dir() {
        stderr::line(format_args!("error: there is no cache in {}", cache.root().display()));
        stderr::line(format_args!("  help: name its folder: qpipe cache --cache DIR …"));
        return Exit::Usage;
    }
    let done = match &args.command {
        Command::Status { json } => status(&cache, *json),
        Command::Gc { pipelines, keep_days, max_size, dry_run } => {
            let keep = Keep {
                lock_files: pipelines.iter().flat_map(|path| LockFile::all(path)).collect(),
                within: Duration::from_secs(keep_days.saturating_mul(86_400)),
                bytes: *max_size,
            };
            gc(&cache, &keep, *dry_run)
        }
        Command::Verify { repair } => verify(&cache, *repair),
        Command::Clear { yes } => clear(&cache, *yes),
        // Both were done above: they need a pipeline, and may make the cache.
        Command::Push(_) | Command::Pull(_) => Ok(Exit::Usage),
    };
    done.unwrap_or_else(shown)
}

pub(super) fn shown(error: CacheError) -> Exit {
    let exit = Exit::from(&error);
    fail::show(&error, exit)
}

fn status(cache: &Cache, json: bool) -> Result<Exit, CacheError> {
    let status = cache.status()?;
    if json {
        stdout::line(format_args!(
            "{}",
            serde_json::json!({ "cache": cache.root(), "status": status })
        ));
        return Ok(Exit::Success);
    }
    stdout::line(format_args!("{}", cache.root().display()));
    stdout::line(format_args!(
        "  {} results of {}",
        status.actions,
        count(status.pipelines, "pipeline")
    ));
    stdout::line(format_args!(
        "  {}, {}",
        count(status.objects, "object"),
        BinaryBytes(status.object_bytes)
    ));
    stdout::line(format_args!(
        "  {}, logs and scratch: {}",
        count(status.checkpoints, "checkpoint"),
        BinaryBytes(status.other_bytes)
    ));
    Ok(Exit::Success)
}

/// A size with its unit.
fn size(text: &str) -> Result<u64, String> {
    quantity::bytes("", text).map_err(|problem| problem.message)
}

fn gc(cache: &Cache, keep: &Keep, dry: bool) -> Result<Exit, CacheError> {
    if let Some(missing) = keep.lock_files.iter().find(|path| !path.exists()) {
        return Err(CacheError::LockFileMissing { path: missing.clone() });
    }
    let collected = cache.collect(keep, dry)?;
    stdout::line(format_args!(
        "{} {} and {}: {}; {} kept",
        if dry { "would remove" } else { "removed" },
        count(collected.actions, "result"),
        count(collected.objects, "object"),
        BinaryBytes(collected.bytes),
        count(collected.kept, "result"),
    ));
    if let Some(limit) = keep.bytes.filter(|limit| collected.kept_bytes > *limit) {
        stderr::line(format_args!(
            "note: what lock files and running stages need has {}, more than --max-size {}",
            BinaryBytes(collected.kept_bytes),
            BinaryBytes(limit),
        ));
    }
    Ok(Exit::Success)
}

fn verify(cache: &Cache, repair: bool) -> Result<Exit, CacheError> {
    let verified = cache.verify()?;
    for fault in &verified.faults {
        stderr::line(format_args!("damaged: {fault}"));
    }
    stdout::line(format_args!(
        "{}, {}, {}: {}",
        count(verified.objects, "object"),
        BinaryBytes(verified.bytes),
        count(verified.actions, "result"),
        if verified.faults.is_empty() {
            "all whole".to_owned()
        } else {
            count(verified.faults.len(), "fault")
        },
    ));
    if verified.faults.is_empty() {
        return Ok(Exit::Success);
    }
    if repair {
        cache.repair(&verified)?;
        stdout::line(format_args!("removed what was damaged; the next run makes it anew"));
        return Ok(Exit::Success);
    }
    stderr::line(format_args!(
        "  help: `qpipe cache verify --repair` removes what is damaged; the next run makes it anew"
    ));
    Ok(Exit::Blocked)
}

fn clear(cache: &Cache, yes: bool) -> Result<Exit, CacheError> {
    if !yes {
        stderr::line(format_args!("error: this removes everything in {}", cache.root().display()));
        stderr::line(format_args!("  help: qpipe cache clear --yes"));
        return Ok(Exit::Usage);
    }
    let bytes = cache.clear()?;
    stdout::line(format_args!("removed {}", BinaryBytes(bytes)));
    Ok(Exit::Success)
}

pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
