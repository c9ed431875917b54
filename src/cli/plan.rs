//! `qpipe plan`.

use super::pipeline_args::{CacheArgs, SelectArgs};
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::exec::reporter::terminal;
use crate::exec::{self, Action, Options, Preview, RunError};
use crate::plan::Plan;

/// Shows what a run would do, and why, without doing it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    cache: CacheArgs,

    /// Shows the plan as if this stage had to run. May be given more than once.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,

    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe plan p.toml
  qpipe plan p.toml qat --set stages.qat.epochs=2
  qpipe plan p.toml --force fp32 --json";

/// Does it.
pub fn run(args: &Args) -> Exit {
    match previews(args) {
        Ok(previews) if args.json => {
            println!("{}", serde_json::json!({ "stages": previews }));
            Exit::Success
        }
        Ok(previews) => {
            print!("{}", terminal::wrapped(&text(&previews), 4, &console::Term::stdout()));
            Exit::Success
        }
        Err(exit) => exit,
    }
}

fn previews(args: &Args) -> Result<Vec<Preview>, Exit> {
    let pipeline = args.pipeline.load()?;
    let fail = |error: RunError| fail::run(error, args.json);
    let mut plan = Plan::new(&pipeline);
    args.select.apply(&mut plan).map_err(|error| fail(error.into()))?;
    let cache =
        Cache::at(&args.cache.root(&pipeline.folder)).map_err(|error| fail(error.into()))?;
    let options = Options { force: args.force.clone(), ..Options::default() };
    exec::preview(&plan, &cache, &options).map_err(fail)
}

/// A line a stage, and how many would run.
fn text(previews: &[Preview]) -> String {
    let width = previews.iter().map(|preview| preview.stage.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut counts = [0; 3];
    for Preview { stage, action, reason, .. } in previews {
        let (word, place) = match action {
            Action::Cached => ("cached", 0),
            Action::Run => ("runs", 1),
            Action::Maybe => ("may run", 2),
        };
        counts[place] += 1;
        let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        text.push_str(&format!("{stage:width$}  {word}{reason}\n"));
    }
    let [cached, runs, maybe] = counts;
    text.push_str(&format!("{cached} cached, {runs} to run, {maybe} that may run\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_aligned_and_counted() {
        let preview = |stage: &str, action, reason: Option<&str>| Preview {
            stage: stage.to_owned(),
            action,
            reason: reason.map(str::to_owned),
            changes: Vec::new(),
            last: None,
        };
        let previews = [
            preview("fp32", Action::Cached, None),
            preview("ptq[max]", Action::Run, Some("seed: 1 → 2")),
            preview("onnx", Action::Maybe, Some("depends on ptq[max]")),
        ];
        let expected = "\
fp32      cached
ptq[max]  runs: seed: 1 → 2
onnx      may run: depends on ptq[max]
1 cached, 1 to run, 1 that may run
";
        assert_eq!(text(&previews), expected);
    }
}
