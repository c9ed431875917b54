//! `qpipe plan`.

use console::{Alignment, measure_text_width, pad_str};

use super::look::{self, Look};
use super::pipeline_args::{CacheArgs, SelectArgs};
use super::{Exit, PipelineArgs, fail};
use crate::exec::reporter::seconds;
use crate::exec::{self, Action, Costs, Options, Preview, RunError};
use crate::plan::Plan;

/// Shows what a run would do, why, and about how long it would take, without doing it.
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

    /// Shows the plan as if this stage had to run. May be given more than once.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,

    /// GPUs that stages of the run may use, as `qpipe run` takes them. Default: $CUDA_VISIBLE_DEVICES, else all.
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    gpus: Option<Vec<String>>,

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
  qpipe plan p.toml
  qpipe plan p.toml qat --set stages.qat.epochs=2
  qpipe plan p.toml --force fp32 --json
  qpipe plan p.toml --exit-code   # 10: there is work";

/// Does it.
pub fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let Look { pipeline, cache } = Look::new(&args.pipeline, &args.cache, args.json)?;
    let fail = |error: RunError| fail::run(error, args.json);
    let mut plan = Plan::new(&pipeline);
    args.select.apply(&mut plan).map_err(|error| fail(error.into()))?;
    let options =
        Options { force: args.force.clone(), gpus: args.gpus.clone(), ..Options::default() };
    let previews = exec::preview(&plan, &cache, &options).map_err(fail)?;
    let costs = exec::costs(&plan, &previews, &options);
    if args.json {
        look::print_json(&serde_json::json!({ "stages": previews, "estimate": costs }));
    } else {
        look::print_wrapped(&text(&previews, &costs));
    }
    Ok(look::exit(&previews, args.exit_code))
}

/// A line a stage, how many would run, and how long that takes.
fn text(previews: &[Preview], costs: &Costs) -> String {
    let width =
        previews.iter().map(|preview| measure_text_width(&preview.stage)).max().unwrap_or(0);
    let mut text = String::new();
    for preview in previews {
        let Preview { stage, action, reason, .. } = preview;
        let word = match action {
            Action::Cached => "cached",
            Action::Run => "runs",
            Action::Maybe => "may run",
            Action::Unknown => "unknown",
        };
        let estimate = match (action, preview.estimate) {
            (Action::Cached, _) => String::new(),
            (_, Some(estimate)) => format!(" (~{})", seconds(estimate)),
            (_, None) => " (?)".to_owned(),
        };
        let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let stage = pad_str(stage, width, Alignment::Left, None);
        text.push_str(&format!("{stage}  {word}{estimate}{reason}\n"));
    }
    let counts = exec::counts(previews);
    let count = |action: &str| counts.get(action).copied().unwrap_or_default();
    text.push_str(&format!(
        "{} cached, {} to run, {} that may run",
        count("cached"),
        count("run"),
        count("maybe")
    ));
    if count("unknown") > 0 {
        text.push_str(&format!(", {} unknown", count("unknown")));
    }
    text.push('\n');
    text.push_str(&time(costs));
    text
}

/// How long a run takes, on a line; nothing where nothing would run.
fn time(costs: &Costs) -> String {
    let Costs { run, all, parallel } = costs;
    if all.stages == 0 {
        return String::new();
    }
    if all.unknown == all.stages {
        return "time: unknown, none of these stages has run yet\n".to_owned();
    }
    let about = |least: f64, most: f64| {
        let (least, most) = (seconds(least), seconds(most));
        if least == most { format!("~{most}") } else { format!("~{least} to ~{most}") }
    };
    let (wall, work) = (about(run.wall, all.wall), about(run.work, all.work));
    let mut text = format!("time: {wall} ({work} of work, {parallel} at a time)");
    if all.unknown > 0 {
        let verb = if all.unknown == 1 { "is" } else { "are" };
        text.push_str(&format!("; {} of unknown time {verb} not counted", all.unknown));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Cost;

    #[test]
    fn stages_are_aligned_and_counted() {
        let preview = |stage: &str, action, reason: Option<&str>, estimate| Preview {
            estimate,
            ..Preview::new(stage.to_owned(), action, reason.map(str::to_owned))
        };
        let previews = [
            preview("fp32", Action::Cached, None, None),
            preview("ptq[最大]", Action::Run, Some("seed: 1 → 2"), Some(75.0)),
            preview("onnx", Action::Maybe, Some("depends on ptq[最大]"), None),
            preview(
                "eval",
                Action::Unknown,
                Some("needs qpipe-worker to tell libtorch"),
                Some(2.0),
            ),
        ];
        let costs = Costs {
            run: Cost { stages: 1, unknown: 0, work: 75.0, wall: 75.0 },
            all: Cost { stages: 3, unknown: 1, work: 77.0, wall: 75.0 },
            parallel: 2,
        };
        let expected = "\
fp32       cached
ptq[最大]  runs (~1 min 15 s): seed: 1 → 2
onnx       may run (?): depends on ptq[最大]
eval       unknown (~2.0 s): needs qpipe-worker to tell libtorch
1 cached, 1 to run, 1 that may run, 1 unknown
time: ~1 min 15 s (~1 min 15 s to ~1 min 17 s of work, 2 at a time); 1 of unknown time is not counted
";
        assert_eq!(text(&previews, &costs), expected);
        let never = Cost { stages: 1, unknown: 1, ..Cost::default() };
        let costs = Costs { run: never, all: never, parallel: 2 };
        assert_eq!(time(&costs), "time: unknown, none of these stages has run yet\n");
        assert_eq!(time(&Costs::default()), "");
    }
}
