//! `qpipe check`.

use std::collections::BTreeSet;

use super::pipeline_args::WatchArgs;
use super::watch::{Seen, watch};
use super::{Exit, PipelineArgs};
use crate::config::Pipeline;
use crate::exec::{stderr, stdout, worker};
use crate::plan::Plan;

/// Checks a pipeline file and shows all its mistakes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    watch: WatchArgs,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe check p.toml
  qpipe check p.toml --set params.epochs=0
  qpipe check p.toml --watch";

/// Does it.
pub fn run(args: &Args) -> Exit {
    if args.watch.watch {
        return watch(true, |seen| once(args, seen));
    }
    once(args, &mut Seen::default())
}

fn once(args: &Args, seen: &mut Seen) -> Exit {
    let pipeline = match args.watch.load(&args.pipeline, seen) {
        Ok(pipeline) => pipeline,
        Err(exit) => return exit,
    };
    args.watch.inputs(&Plan::new(&pipeline), seen);
    if let Err(exit) = usable(args, &pipeline) {
        return exit;
    }
    let file = args.pipeline.file.display();
    stdout::line(format_args!("{file}: ok, {}", summary(&pipeline)));
    Exit::Success
}

/// Asks the worker about ONNX files that stages train, calibrate, feed images to or build engines of: one process for all of them, none where there are
/// none. Where it cannot be asked, that is no mistake of the file.
fn usable(args: &Args, pipeline: &Pipeline) -> Result<(), Exit> {
    let asked = pipeline.asked();
    if asked.is_empty() {
        return Ok(());
    }
    match worker::which(&asked) {
        Ok(told) => {
            let name = args.pipeline.file.display().to_string();
            let mistakes = pipeline.unfit(&name, &told);
            mistakes.map_or(Ok(()), |mistakes| Err(args.pipeline.show(&mistakes)))
        }
        Err(error) => {
            let all = asked.iter().map(|(word, files)| {
                let files: Vec<String> =
                    files.iter().map(|file| format!("`{}`", file.display())).collect();
                format!("{} is {word}", files.join(", "))
            });
            let all: Vec<String> = all.collect();
            stderr::line(format_args!(
                "note: whether {} was not checked: {error}",
                all.join(" and ")
            ));
            Ok(())
        }
    }
}

/// `2 data sets, 11 stages (46 with the cells of their matrices)`.
fn summary(pipeline: &Pipeline) -> String {
    let names: BTreeSet<&str> = pipeline.stages.iter().map(|cell| cell.name.as_str()).collect();
    if let Some(sweep) = &pipeline.sweep {
        let own = pipeline.stages.iter().filter(|cell| cell.point.is_some()).count();
        return format!(
            "a sweep of {}: {} the same in all, {own} of their own",
            count(sweep.points.len(), "point"),
            count(pipeline.stages.len() - own, "stage"),
        );
    }
    let (stages, cells) = (names.len(), pipeline.stages.len());
    let cells = if cells > stages {
        format!(", {cells} with all cells of their matrices")
    } else {
        String::new()
    };
    format!("{}, {}{cells}", count(pipeline.data.len(), "data set"), count(stages, "stage"))
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
