//! `qpipe status`.

use console::{Alignment, measure_text_width, pad_str};

use super::log::counts;
use super::look::{self, Look};
use super::pipeline_args::{CacheArgs, SelectArgs};
use super::when::when;
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::exec::{self, Action, LastTime, Options, Preview, RunError, RunRecord, Status};
use crate::plan::Plan;

/// Shows how each stage stands: up to date, to be run, failed last time.
///
/// It needs no cache folder and no worker, takes no lock and writes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    cache: CacheArgs,

    /// Ends with exit code 10 if a run would do something.
    #[arg(long)]
    exit_code: bool,

    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe status p.toml
  qpipe status p.toml qat --json
  qpipe status p.toml --exit-code   # 10: there is work";

/// Does it.
pub fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let Look { pipeline, cache } = Look::new(&args.pipeline, &args.cache, args.json)?;
    let fail = |error: RunError| fail::run(error, args.json);
    let mut plan = Plan::new(&pipeline);
    args.select.apply(&mut plan).map_err(|error| fail(error.into()))?;
    let previews = exec::preview(&plan, &cache, &Options::default()).map_err(fail)?;
    let mut runs = exec::newest_first(&cache).map_err(fail)?;
    let last = runs.find(|run| run.is_of(&pipeline));
    if args.json {
        let last = last.as_ref().map(|run| {
            serde_json::json!({
                "id": run.id, "started": run.started, "seconds": run.seconds,
                "ran": run.count(Status::Ran),
                "cached": run.count(Status::Cached),
                "pulled": run.count(Status::Pulled),
                "failed": run.count(Status::Failed),
                "interrupted": run.count(Status::Interrupted),
                "skipped": run.not_run(),
            })
        });
        look::print_json(&serde_json::json!({
            "stages": previews,
            "counts": exec::counts(&previews),
            "last_run": last,
            "cache": { "path": cache.root(), "exists": cache.root().is_dir() },
        }));
    } else {
        look::print_wrapped(&text(&previews, last.as_ref(), &cache));
    }
    Ok(look::exit(&previews, args.exit_code))
}

/// A line a stage, counts, the last run, where the cache is.
fn text(previews: &[Preview], last: Option<&RunRecord>, cache: &Cache) -> String {
    let width =
        previews.iter().map(|preview| measure_text_width(&preview.stage)).max().unwrap_or(0);
    let mut text = String::new();
    for preview in previews {
        let stage = pad_str(&preview.stage, width, Alignment::Left, None);
        text.push_str(&format!("{stage}  {}\n", line(preview)));
    }
    let actions = exec::counts(previews);
    let count = |action: &str| actions.get(action).copied().unwrap_or_default();
    let failed = previews.iter().filter(|preview| failure(preview).is_some()).count();
    let mut parts = vec![format!("{} up to date", count("cached"))];
    let more = [
        (count("run"), "to run"),
        (count("maybe"), "that may run"),
        (count("unknown"), "unknown"),
        (failed, "failed last time"),
    ];
    let more = more.into_iter().filter(|(count, _)| *count > 0);
    parts.extend(more.map(|(count, what)| format!("{count} {what}")));
    text.push_str(&format!("{}\n", parts.join(", ")));
    if let Some(run) = last {
        let (id, when, counts) = (&run.id, when(&run.started), counts(run));
        text.push_str(&format!("last run: {id}, {when}: {counts}\n"));
    }
    let there = if cache.root().is_dir() { "" } else { " (not there yet)" };
    text.push_str(&format!("cache: {}{there}\n", cache.root().display()));
    text
}

fn line(preview: &Preview) -> String {
    let reason = preview.reason.as_deref().unwrap_or_default();
    if let Some((time, message)) = failure(preview) {
        let first = message.lines().next().unwrap_or_default();
        let log = time.log.as_ref().map(|log| format!("; log: {}", log.display()));
        return format!("failed: {first} ({}{})", when(&time.started), log.unwrap_or_default());
    }
    match preview.action {
        Action::Cached => "up to date".to_owned(),
        Action::Run => format!("would run: {reason}"),
        Action::Maybe => format!("may run: {reason}"),
        Action::Unknown => format!("unknown: {reason}"),
    }
}

/// The failure of a stage in the last run that tried it.
fn failure(preview: &Preview) -> Option<(&LastTime, &str)> {
    let time = preview.last_time.as_ref()?;
    time.message.as_deref().map(|message| (time, message))
}
