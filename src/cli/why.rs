//! `qpipe why`.

use std::collections::BTreeSet;

use super::look::{self, Look};
use super::pipeline_args::CacheArgs;
use super::when::when;
use super::{Exit, PipelineArgs, fail};
use crate::exec::reporter::seconds;
use crate::exec::{self, Action, Change, Explanation, Made, Preview, RunError, Since};
use crate::plan::Plan;

/// Shows exactly why stages would run, or ran: all that changed, old and new values.
///
/// Of a stage that is up to date, it shows when, where and why it ran and what it was made from; of
/// one that this cache does not know, in what it differs from the lock file. It needs no cache folder
/// and no worker, takes no lock and writes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    /// Stages to explain, such as `qat`, `onnx[qat]` or `onnx*`.
    #[arg(value_name = "STAGE", required = true)]
    stages: Vec<String>,

    #[command(flatten)]
    cache: CacheArgs,

    /// Ends with exit code 10 if a run would do something with one of them.
    #[arg(long)]
    exit_code: bool,

    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe why p.toml qat
  qpipe why p.toml qat --set stages.qat.epochs=2
  qpipe why p.toml \"onnx[*,1]\" --json";

/// Does it.
pub fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let Look { pipeline, cache } = Look::new(&args.pipeline, &args.cache, args.json)?;
    let fail = |error: RunError| fail::run(error, args.json);
    let mut plan = Plan::new(&pipeline);
    plan.select(&args.stages).map_err(|error| fail(error.into()))?;
    let mut asked = BTreeSet::new();
    for stage in &args.stages {
        asked.extend(plan.named(stage).map_err(|error| fail(error.into()))?);
    }
    let explanations = exec::why(&plan, &cache, &asked).map_err(fail)?;
    if args.json {
        look::print_json(&serde_json::json!({ "stages": explanations }));
    } else {
        look::print_wrapped(&explanations.iter().map(text).collect::<String>());
    }
    Ok(look::exit(explanations.iter().map(|explanation| &explanation.preview), args.exit_code))
}

fn text(explanation: &Explanation) -> String {
    let Explanation { preview, since, .. } = explanation;
    let Preview { stage, action, changes, .. } = preview;
    let reason = preview.reason.as_deref().unwrap_or_default();
    let mut text = match action {
        Action::Cached => format!("{stage}: up to date\n"),
        // One reason says it all; of several each has its line.
        Action::Run if changes.is_empty() => format!("{stage}: runs: {reason}\n"),
        Action::Run => match since {
            Some(Since::LockFile) => format!("{stage}: runs, other than in the lock file\n"),
            _ => format!("{stage}: runs, since its last success\n"),
        },
        Action::Maybe => format!("{stage}: may run: {reason}\n"),
        Action::Unknown => format!("{stage}: unknown: {reason}\n"),
    };
    for change in changes {
        text.push_str(&format!("  {}\n", change.text()));
    }
    for producer in &explanation.producers {
        let reason = producer.reason.as_deref().unwrap_or("the run is no longer known");
        let verb = match (producer.action, &producer.run) {
            (Action::Cached, Some(run)) => format!("ran in run {run}"),
            (Action::Cached, None) => "ran".to_owned(),
            (Action::Run, _) => "runs".to_owned(),
            (Action::Maybe, _) => "may run".to_owned(),
            (Action::Unknown, _) => "unknown".to_owned(),
        };
        text.push_str(&format!("  {} {verb}: {reason}\n", producer.stage));
    }
    if let Some(last) = &preview.last {
        text.push_str(&format!(
            "  last success: {} on {}, {}, qpipe {}\n",
            when(&last.started),
            last.host,
            seconds(last.seconds),
            last.version
        ));
    }
    if let Some(time) = &preview.last_time {
        let how = match (&time.message, &time.skipped) {
            _ if time.interrupted => "interrupted".to_owned(),
            (Some(message), _) => format!("failed: {message}"),
            (None, Some(stage)) => format!("did not run, because {stage} failed"),
            (None, None) => "failed".to_owned(),
        };
        text.push_str(&format!("  last time, in run {}: {how}\n", time.run));
        if let Some(log) = &time.log {
            text.push_str(&format!("    log: {}\n", log.display()));
        }
    }
    if let Some(made) = &explanation.made {
        text.push_str(&made_text(made));
    }
    text
}

fn made_text(made: &Made) -> String {
    let mut text = String::new();
    if let (Some(run), Some(reason)) = (&made.run, &made.reason) {
        if made.changes.is_empty() {
            text.push_str(&format!("  ran in run {run}: {reason}\n"));
        } else {
            text.push_str(&format!("  ran in run {run}, since the success before\n"));
            let line = |change: &Change| format!("    {}\n", change.text());
            text.extend(made.changes.iter().map(line));
        }
    }
    text.push_str("  made from\n");
    for input in &made.inputs {
        text.push_str(&format!("    {}: {}\n", input.what, input.digest.short()));
    }
    text.push_str(&format!("    seed: {}\n", made.seed));
    for (name, value) in &made.facts {
        text.push_str(&format!("    {name}: {value}\n"));
    }
    text
}
