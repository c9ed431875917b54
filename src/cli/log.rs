//! `qpipe log`.

use super::look::{self, Look};
use super::pipeline_args::CacheArgs;
use super::when::when;
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::exec::reporter::seconds;
use crate::exec::{self, RunError, RunRecord, Status, find_run, shell, stderr};
use crate::plan::Plan;

/// Lists the runs of a pipeline, newest first, or prints what a stage printed.
///
/// Runs that found everything up to date leave no trace.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    cache: CacheArgs,

    /// Prints the last log of this stage.
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,

    /// Its log of this run: an id, the beginning of one, `last` or `last~2`.
    #[arg(long, value_name = "RUN", requires = "stage")]
    run: Option<String>,

    /// At most so many runs.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// As JSON, for programs.
    #[arg(long, conflicts_with = "stage")]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe log p.toml
  qpipe log p.toml -n 100 --json
  qpipe log p.toml --stage qat
  qpipe log p.toml --stage qat --run last~1";

/// Does it.
pub fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let Look { pipeline, cache } = Look::new(&args.pipeline, &args.cache, args.json)?;
    let fail = |error: RunError| fail::run(error, args.json);
    let runs = exec::newest_first(&cache).map_err(fail)?;
    let runs = runs.filter(|run| run.is_of(&pipeline));
    if let Some(stage) = &args.stage {
        let runs: Vec<RunRecord> = runs.collect();
        let plan = Plan::new(&pipeline);
        let named = plan.named(stage).map_err(|error| fail(error.into()))?;
        let ids: Vec<&str> = named.iter().map(|index| plan.stage(*index).id.as_str()).collect();
        let runs = match &args.run {
            Some(name) => {
                let run = find_run(&runs, name);
                vec![run.map_err(|error| fail::show(&error, Exit::Usage))?.clone()]
            }
            None => runs,
        };
        return Ok(print_logs(&cache, &runs, &ids));
    }
    let runs: Vec<RunRecord> =
        runs.take(usize::try_from(args.limit).unwrap_or(usize::MAX)).collect();
    if args.json {
        look::print_json(&serde_json::json!({ "runs": runs.iter().map(json).collect::<Vec<_>>() }));
    } else if runs.is_empty() {
        look::print(&format!("no runs yet of {} in {}\n", pipeline.name, cache.root().display()));
    } else {
        look::print(&runs.iter().map(line).collect::<String>());
    }
    Ok(Exit::Success)
}

fn json(run: &RunRecord) -> serde_json::Value {
    serde_json::json!({
        "id": run.id,
        "started": run.started,
        "seconds": run.seconds,
        "host": run.host,
        "version": run.version,
        "command": run.command,
        "commit": run.commit,
        "ran": run.count(Status::Ran),
        "cached": run.count(Status::Cached),
        "pulled": run.count(Status::Pulled),
        "failed": run.count(Status::Failed),
        "interrupted": run.count(Status::Interrupted),
        "skipped": run.not_run(),
    })
}

pub(super) fn line(run: &RunRecord) -> String {
    let (took, counts) = (seconds(run.seconds), counts(run));
    format!("{}  {}  {took}  {counts}  {}\n", run.id, when(&run.started), command(run))
}

/// `2 ran, 1 cached, 1 failed`.
pub(super) fn counts(run: &RunRecord) -> String {
    let mut parts = vec![
        format!("{} ran", run.count(Status::Ran)),
        format!("{} cached", run.count(Status::Cached)),
    ];
    let more = [
        (run.count(Status::Pulled), "pulled"),
        (run.count(Status::Failed), "failed"),
        (run.count(Status::Interrupted), "interrupted"),
        (run.not_run(), "not run"),
    ];
    let more = more.into_iter().filter(|(count, _)| *count > 0);
    parts.extend(more.map(|(count, what)| format!("{count} {what}")));
    parts.join(", ")
}

/// The command line, without the program's folder.
pub(super) fn command(run: &RunRecord) -> String {
    let mut words: Vec<&str> = run.command.iter().map(String::as_str).collect();
    if let Some(first) = words.first_mut() {
        *first = first.rsplit('/').next().unwrap_or(first);
    }
    shell::line(words)
}

/// Prints the newest log of each stage.
fn print_logs(cache: &Cache, runs: &[RunRecord], ids: &[&str]) -> Exit {
    let mut any = false;
    for id in ids {
        let Some(path) = runs.iter().find_map(|run| run.log(cache, id)) else { continue };
        any = true;
        if ids.len() > 1 {
            look::print(&format!("==> {id}\n"));
        }
        match std::fs::read(&path) {
            // Programs may print colours.
            Ok(bytes) => look::print_raw(&String::from_utf8_lossy(&bytes)),
            Err(error) => {
                stderr::line(format_args!("error: cannot read {}: {error}", path.display()));
                return Exit::Machine;
            }
        }
    }
    if any {
        return Exit::Success;
    }
    stderr::line(format_args!(
        "error: no log of {}: it printed nothing, or its logs are gone",
        ids.join(", ")
    ));
    stderr::line(format_args!("  help: `qpipe log FILE` lists the runs that the cache remembers"));
    Exit::Usage
}
