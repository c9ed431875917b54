//! `qpipe diff`.

use indicatif::BinaryBytes;

use super::look::{self, Look};
use super::pipeline_args::CacheArgs;
use super::{Exit, PipelineArgs, fail};
use crate::cache::LockFile;
use crate::exec::{
    self, Artifact, Diff, MetricDiff, Presence, RunError, RunRecord, Snapshot, StageDiff, find_run,
    stderr,
};

/// Shows in what two runs differ: configurations, inputs, facts, figures, artifacts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    /// A run: an id, the beginning of one, `last`, `last~2`; or `lock`, the lock file.
    #[arg(value_name = "RUN")]
    from: String,

    /// The run that is compared with it.
    #[arg(value_name = "RUN")]
    to: String,

    #[command(flatten)]
    cache: CacheArgs,

    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe diff p.toml last~1 last
  qpipe diff p.toml lock last --json";

/// Does it.
pub fn run(args: &Args) -> Exit {
    show(args).unwrap_or_else(|exit| exit)
}

fn show(args: &Args) -> Result<Exit, Exit> {
    let Look { pipeline, cache } = Look::new(&args.pipeline, &args.cache, args.json)?;
    let fail = |error: RunError| fail::run(error, args.json);
    let runs = exec::newest_first(&cache).map_err(fail)?;
    let runs: Vec<RunRecord> = runs.filter(|run| run.is_of(&pipeline)).collect();
    let side = |name: &str| {
        if name == "lock" {
            let path = pipeline.lock_file();
            let lock = LockFile::read(&path).map_err(|error| fail(error.into()))?;
            let Some(lock) = lock else {
                stderr::line(format_args!("error: there is no lock file {}", path.display()));
                stderr::line(format_args!("  help: a run that succeeds writes it"));
                return Err(Exit::Usage);
            };
            return Ok(Snapshot::of_lock(&lock));
        }
        let run = find_run(&runs, name).map_err(|error| fail::show(&error, Exit::Usage))?;
        Snapshot::of_run(&cache, run).map_err(fail)
    };
    let (from, to) = (side(&args.from)?, side(&args.to)?);
    let diff = exec::diff(&pipeline, &from, &to);
    if args.json {
        look::print_json(&diff);
    } else {
        look::print(&text(&diff));
    }
    Ok(Exit::Success)
}

pub(super) fn text(diff: &Diff) -> String {
    let Diff { from, to, common, stages } = diff;
    let mut text = format!("from {from} to {to}\n");
    for StageDiff { stage, presence, changes, metrics, artifacts } in stages {
        let note = match presence {
            Presence::Both => String::new(),
            Presence::OnlyFrom => format!(": only in {from}"),
            Presence::OnlyTo => format!(": only in {to}"),
            Presence::FailedFrom => format!(": failed in {from}"),
            Presence::FailedTo => format!(": failed in {to}"),
            Presence::Forgotten => {
                ": other than before; a record is gone from the cache".to_owned()
            }
        };
        text.push_str(&format!("{stage}{note}\n"));
        for change in changes {
            text.push_str(&format!("  {}\n", change.text()));
        }
        for metric in metrics {
            text.push_str(&format!("  {}\n", figure(metric)));
        }
        for artifact in artifacts {
            let (old, new) = (object(artifact.old.as_ref()), object(artifact.new.as_ref()));
            text.push_str(&format!("  output {}: {old} → {new}\n", artifact.port));
        }
    }
    let alike = common - stages.iter().filter(|stage| is_common(stage)).count();
    text.push_str(&format!("{} differ, {alike} alike\n", stages.len()));
    text
}

fn is_common(stage: &StageDiff) -> bool {
    !matches!(stage.presence, Presence::OnlyFrom | Presence::OnlyTo)
}

fn object(artifact: Option<&Artifact>) -> String {
    let Some(Artifact { digest, bytes }) = artifact else { return "nothing".to_owned() };
    let size = bytes.map(|bytes| format!(" ({})", BinaryBytes(bytes))).unwrap_or_default();
    format!("{}{size}", digest.short())
}

fn figure(metric: &MetricDiff) -> String {
    let value = |value: Option<f64>| value.map_or("nothing".to_owned(), written);
    let MetricDiff { name, old, new, difference } = metric;
    let larger = old.unwrap_or(0.0).abs().max(new.unwrap_or(0.0).abs());
    // Digits behind what two figures can tell apart are noise.
    let rounded = |difference: f64| {
        if difference.abs() < 1e-12 * larger {
            return 0.0;
        }
        format!("{difference:.5e}").parse().unwrap_or(difference)
    };
    let difference = difference.map(rounded).map(|difference| {
        let sign = if difference < 0.0 { "" } else { "+" };
        format!(" ({sign}{})", written(difference))
    });
    format!("{name} = {} → {}{}", value(*old), value(*new), difference.unwrap_or_default())
}

/// All digits; those of very great and very small numbers with an exponent.
fn written(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(1e-5..1e15).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_with_their_difference() {
        let metric = |old, new, difference| {
            let name = "top1".to_owned();
            figure(&MetricDiff { name, old, new, difference })
        };
        assert_eq!(metric(Some(0.1), Some(0.3), Some(0.3 - 0.1)), "top1 = 0.1 → 0.3 (+0.2)");
        assert_eq!(metric(Some(2.0), Some(1.5), Some(-0.5)), "top1 = 2 → 1.5 (-0.5)");
        assert_eq!(metric(None, Some(1.0), None), "top1 = nothing → 1");
        assert_eq!(metric(Some(1e-12), Some(3e-12), Some(2e-12)), "top1 = 1e-12 → 3e-12 (+2e-12)");
        assert_eq!(metric(Some(1e300), Some(1e300), Some(0.0)), "top1 = 1e300 → 1e300 (+0)");
        assert_eq!(
            metric(Some(0.3), Some(0.1 + 0.2), Some(0.1 + 0.2 - 0.3)),
            "top1 = 0.3 → 0.30000000000000004 (+0)"
        );
    }
}
