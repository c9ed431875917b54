//! `qpipe show`.

use std::collections::BTreeMap;

use indicatif::BinaryBytes;

use super::log::{command, counts};
use super::look::{self, Look};
use super::pipeline_args::CacheArgs;
use super::when::when;
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::exec::reporter::seconds;
use crate::exec::{self, Commit, Provenance, RunError, RunRecord, Status, find_run, stderr};
use crate::plan::Plan;
use crate::stages::contract::Metrics;

/// Shows what a run did, or where a stage's artifacts come from and the commands that make them again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    /// A stage, or a run: an id, the beginning of one, `last` or `last~2`.
    #[arg(value_name = "STAGE|RUN")]
    what: String,

    #[command(flatten)]
    cache: CacheArgs,

    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe show p.toml last
  qpipe show p.toml qat
  qpipe show p.toml \"onnx[qat]\" --json";

/// Does it.
pub fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let Look { pipeline, cache } = Look::new(&args.pipeline, &args.cache, args.json)?;
    let fail = |error: RunError| fail::run(error, args.json);
    let runs = exec::newest_first(&cache).map_err(fail)?;
    let runs: Vec<RunRecord> = runs.filter(|run| run.is_of(&pipeline)).collect();
    let plan = Plan::new(&pipeline);
    match plan.named(&args.what) {
        Ok(stages) => {
            let (mut found, current) = (Vec::new(), exec::up_to_date(&plan, &cache));
            for index in stages {
                found
                    .extend(exec::provenance(&plan, &cache, &runs, &current, index).map_err(fail)?);
            }
            if found.is_empty() {
                stderr::line(format_args!("error: the cache knows no result of {}", args.what));
                stderr::line(format_args!(
                    "  help: `qpipe run {} {}`",
                    args.pipeline.file.display(),
                    args.what
                ));
                return Err(Exit::Usage);
            }
            if args.json {
                look::print_json(&serde_json::json!({ "stages": found }));
            } else {
                look::print(&found.iter().map(stage_text).collect::<Vec<_>>().join("\n"));
            }
        }
        Err(no_stage) => match find_run(&runs, &args.what) {
            Ok(run) => {
                let metrics = metrics(&cache, run).map_err(fail)?;
                if args.json {
                    look::print_json(&serde_json::json!({ "run": run, "metrics": metrics }));
                } else {
                    look::print(&run_text(run, &metrics));
                }
            }
            // What begins like a run's id, or is an age, was meant as a run.
            Err(error) if args.what.starts_with("last") || args.what.starts_with("20") => {
                return Err(fail::show(&error, Exit::Usage));
            }
            Err(_) => return Err(fail::show(&no_stage, Exit::Usage)),
        },
    }
    Ok(Exit::Success)
}

/// Figures of a run's stages, as far as their records are still known.
fn metrics(cache: &Cache, run: &RunRecord) -> Result<BTreeMap<String, Metrics>, RunError> {
    let mut metrics = BTreeMap::new();
    for (id, stage) in &run.stages {
        if !stage.status.has_result() {
            continue;
        }
        let record = cache.record_of(&stage.key)?;
        let own = record.map(|record| record.metrics).filter(|metrics| !metrics.is_empty());
        metrics.extend(own.map(|own| (id.clone(), own)));
    }
    Ok(metrics)
}

fn commit_text(commit: &Commit) -> String {
    let dirty = if commit.dirty { ", with changes that were not committed" } else { "" };
    format!("{}{dirty}", commit.id)
}

pub(super) fn run_text(run: &RunRecord, metrics: &BTreeMap<String, Metrics>) -> String {
    let mut text = format!("run {}\n", run.id);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:9} {value}\n"));
    line("pipeline", &format!("{} ({})", run.pipeline, run.file.display()));
    line("command", &command(run));
    let version = format!("qpipe {}", run.version);
    let took = seconds(run.seconds);
    line("started", &format!("{} on {}, {took}, {version}", when(&run.started), run.host));
    if let Some(commit) = &run.commit {
        line("commit", &commit_text(commit));
    }
    line("stages", &counts(run));
    for (id, stage) in &run.stages {
        let took = seconds(stage.seconds);
        let how = match stage.status {
            Status::Cached => "cached".to_owned(),
            Status::Ran => format!("ran in {took}: {}", stage.reason),
            Status::Pulled => format!("pulled in {took}: {}", stage.reason),
            Status::Interrupted => format!("interrupted after {took}: {}", stage.reason),
            Status::Failed => {
                let message = stage.failure.as_ref().map(|failure| failure.message.as_str());
                format!("failed after {took}: {}", message.unwrap_or_default())
            }
        };
        text.push_str(&format!("{id}: {how}\n"));
        for change in &stage.changes {
            text.push_str(&format!("  {}\n", change.text()));
        }
        if let Some(own) = metrics.get(id) {
            text.push_str(&figures(own));
        }
    }
    for (id, failed) in &run.skipped {
        text.push_str(&format!("{id}: not run, because {failed} failed\n"));
    }
    if run.left > 0 {
        let stages = if run.left == 1 { "stage" } else { "stages" };
        text.push_str(&format!(
            "{} more {stages} not run: a run without --keep-going begins none after a failure\n",
            run.left
        ));
    }
    text
}

fn figures(metrics: &Metrics) -> String {
    metrics.iter().map(|(name, value)| format!("  {name} = {value}\n")).collect()
}

fn stage_text(found: &Provenance) -> String {
    let Provenance { stage, made, .. } = found;
    let mut text = format!("{stage}: {}, version {}\n", found.kind, found.kind_version);
    text.push_str(&format!(
        "  made {} on {}, {}, qpipe {}\n",
        when(&made.started),
        made.host,
        seconds(made.seconds),
        made.version
    ));
    if !found.current {
        text.push_str(
            "  of the last run: the file, its inputs or this machine have changed since\n",
        );
    }
    let run = found.run.as_deref().unwrap_or("no longer known");
    text.push_str(&format!("  run: {run}\n"));
    if let Some(commit) = &found.commit {
        text.push_str(&format!("  commit: {}\n", commit_text(commit)));
    }
    text.push_str(&format!("  key: {}\n  config: {}\n", made.key, found.config));
    text.push_str(&format!("  seed: {}\n", found.seed));
    for (name, value) in &found.facts {
        text.push_str(&format!("  {name}: {value}\n"));
    }
    for source in &found.inputs {
        text.push_str(&format!("  {}: {}\n", source.what, source.digest));
    }
    for output in &found.outputs {
        let size = BinaryBytes(output.bytes);
        let path = output.path.display();
        text.push_str(&format!("  output {}: {}, {size}, {path}\n", output.port, output.digest));
    }
    text.push_str(&figures(&found.metrics));
    for link in &found.chain {
        match &link.made {
            Some(made) => {
                let run = link.run.as_deref().unwrap_or("a run that is no longer known");
                let when = when(&made.started);
                text.push_str(&format!("  from {}: {run}, {when} on {}\n", link.stage, made.host));
            }
            None => text.push_str(&format!("  from {}: no longer known\n", link.stage)),
        }
        for source in &link.inputs {
            text.push_str(&format!("    {}: {}\n", source.what, source.digest));
        }
    }
    text.push_str("  to make it again:\n");
    for command in &found.commands {
        text.push_str(&format!("    {command}\n"));
    }
    if let Some(program) = &found.program {
        text.push_str(&format!("  its own command, outputs below `out`:\n    {program}\n"));
    }
    text
}
