//! `qpipe why`.

use std::collections::HashSet;

use super::pipeline_args::CacheArgs;
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::exec::{self, Action, Change, Options, Preview, RunError};
use crate::plan::Plan;

/// Shows exactly what changed since a stage's last success, old and new values, or when it ran.
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

    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe why p.toml qat
  qpipe why p.toml \"onnx[*,1]\" --json";

/// Does it.
pub fn run(args: &Args) -> Exit {
    match explain(args) {
        Ok(previews) if args.json => {
            println!("{}", serde_json::json!({ "stages": previews }));
            Exit::Success
        }
        Ok(previews) => {
            previews.iter().for_each(|preview| print!("{}", text(preview)));
            Exit::Success
        }
        Err(exit) => exit,
    }
}

fn explain(args: &Args) -> Result<Vec<Preview>, Exit> {
    let pipeline = args.pipeline.load()?;
    let fail = |error: RunError| fail::run(error, args.json);
    let mut plan = Plan::new(&pipeline);
    plan.select(&args.stages).map_err(|error| fail(error.into()))?;
    let mut asked = HashSet::new();
    for stage in &args.stages {
        let named = plan.named(stage).map_err(|error| fail(error.into()))?;
        asked.extend(named.into_iter().map(|index| plan.stage(index).id.clone()));
    }
    let cache =
        Cache::at(&args.cache.root(&pipeline.folder)).map_err(|error| fail(error.into()))?;
    let previews = exec::preview(&plan, &cache, &Options::default()).map_err(fail)?;
    Ok(previews.into_iter().filter(|preview| asked.contains(&preview.stage)).collect())
}

fn text(preview: &Preview) -> String {
    let Preview { stage, action, reason, changes, last } = preview;
    let reason = reason.as_deref().unwrap_or_default();
    let mut text = match action {
        Action::Cached => format!("{stage}: up to date\n"),
        // One reason says it all; of several each has its line.
        Action::Run if changes.is_empty() => format!("{stage}: runs: {reason}\n"),
        Action::Run => format!("{stage}: runs, since its last success\n"),
        Action::Maybe => format!("{stage}: may run: {reason}\n"),
    };
    for Change { what, old, new, .. } in changes {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        text.push_str(&format!("  {what}: {} → {}\n", value(old), value(new)));
    }
    if let Some(last) = last {
        text.push_str(&format!(
            "  last success: {} on {}, {:.1} s, qpipe {}\n",
            last.started, last.host, last.seconds, last.version
        ));
    }
    text
}
