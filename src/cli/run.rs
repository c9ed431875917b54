//! `qpipe run`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::ci::CheckArgs;
use super::pipeline_args::{CacheArgs, RemoteArgs, SelectArgs, WatchArgs};
use super::telling::Telling;
use super::watch::{Seen, watch};
use super::{Exit, PipelineArgs, accepted, fail};
use crate::cache::{Cache, Digest};
use crate::config::{self, Pipeline};
use crate::exec::{self, ExecutorChoice, Locked, Options, Part, RunError, SlurmOptions, Summary};
use crate::plan::Plan;
use crate::report::Better;

/// Runs what is not up to date, and prints the table.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    run: RunArgs,
}

/// What `qpipe run` and `qpipe ci` have in common.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    remote: RemoteArgs,

    /// Runs this stage even if it is up to date. May be given more than once.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,

    /// Prints events as JSON lines.
    #[arg(long)]
    pub(super) json: bool,

    /// Prints errors only.
    #[arg(long, short, conflicts_with = "json")]
    pub(super) quiet: bool,

    /// Fails rather than change the lock file.
    ///
    /// Stages whose keys differ from it only by the machine, such as benchmarks on another host, run
    /// all the same and leave it as it is; with `--locked=strict` they fail too.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "portable")]
    locked: Option<Strictness>,

    /// Appends a summary in Markdown to this file. Default with `ci`: $GITHUB_STEP_SUMMARY.
    #[arg(long, value_name = "FILE")]
    pub(super) summary: Option<PathBuf>,

    /// In the table of a sweep, marks the highest (or with `:min` the lowest) of these figures,
    /// where their names do not tell. May be given more than once.
    #[arg(long, value_name = "FIGURE[:min|:max]", value_parser = best)]
    best: Vec<(String, Better)>,

    /// After a failure, goes on with stages that do not need what failed.
    #[arg(long)]
    keep_going: bool,

    #[command(flatten)]
    watch: WatchArgs,

    /// Stages at a time. Default: as many as processors.
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// GPUs that stages may use, by number (of nvidia-smi) or name: no stage sees another one. Default: $CUDA_VISIBLE_DEVICES, else all.
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    gpus: Option<Vec<String>>,

    /// Who runs what is not up to date: this machine, or the jobs of a Slurm cluster. With `slurm`,
    /// `--jobs` is how many elements of an array job run at a time.
    #[arg(long, value_enum, default_value_t, value_name = "EXECUTOR")]
    executor: Executor,

    /// An option of `sbatch`, such as `--slurm-option=--partition=gpu`. May be given more than once.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, value_parser = slurm_option)]
    slurm_option: Vec<String>,

    #[command(flatten)]
    job: JobArgs,
}

/// Who runs what is not up to date.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Executor {
    /// This machine.
    #[default]
    Local,
    /// Jobs of a Slurm cluster.
    Slurm,
}

/// What the jobs of a cluster are started with.
#[derive(Debug, clap::Args)]
struct JobArgs {
    /// Neither reads nor writes the lock file.
    #[arg(long, hide = true, conflicts_with = "locked")]
    no_lock: bool,

    /// Where producers of the stage have handed over what they came to.
    #[arg(long, hide = true, value_name = "DIR", requires = "definition")]
    hand_over: Option<PathBuf>,

    /// Digest of the definition that the stage must have.
    #[arg(long, hide = true, value_name = "DIGEST", value_parser = digest, requires = "hand_over")]
    definition: Option<Digest>,

    /// Runs the target even if it is up to date.
    #[arg(long, hide = true)]
    force_target: bool,
}

fn slurm_option(text: &str) -> Result<String, String> {
    let checked = config::check_option(text).map(|()| text.to_owned());
    checked.map_err(|(message, help)| format!("{message}: {help}"))
}

fn digest(text: &str) -> Result<Digest, String> {
    Digest::try_from(text.to_owned())
}

/// How strict `--locked` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Strictness {
    /// Stages that depend on the machine may have other keys and results.
    Portable,
    /// No stage may.
    Strict,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe run p.toml                            # all that is not up to date
  qpipe run p.toml qat+                       # qat, what it needs, what depends on it
  qpipe run p.toml \"onnx[*,1]\" kind:benchmark # patterns, united
  qpipe run p.toml --exclude \"bench*\"         # all but those and what needs them
  qpipe run p.toml --set params.epochs=1
  qpipe run p.toml qat --watch                # again after every change
  qpipe run p.toml --locked --json            # nothing but what the lock file says
  qpipe run p.toml --executor slurm --slurm-option=--partition=gpu";

/// Does it.
pub fn run(args: &Args) -> Exit {
    perform(&args.run, None)
}

/// Runs a pipeline; with `check`, holds it to its guards.
pub(super) fn perform(args: &RunArgs, check: Option<&CheckArgs>) -> Exit {
    if args.watch.watch {
        return watch(!args.json && !args.quiet, |seen| once(args, check, seen));
    }
    once(args, check, &mut Seen::default())
}

fn once(args: &RunArgs, check: Option<&CheckArgs>, seen: &mut Seen) -> Exit {
    match execute(args, check, seen) {
        Ok(summary) => exit(&summary),
        Err(exit) => exit,
    }
}

fn execute(args: &RunArgs, check: Option<&CheckArgs>, seen: &mut Seen) -> Result<Summary, Exit> {
    let pipeline = args.watch.load(&args.pipeline, seen)?;
    let mut telling = Telling::new(args, check.is_some(), &pipeline);
    let fail = |error: RunError, telling: &mut Telling| {
        telling.ended(&error);
        fail::run(error, args.json)
    };
    let mut plan = Plan::new(&pipeline);
    let part = part(args);
    let options =
        Options { part, remote: args.remote.open(&pipeline)?, ..options(args, &pipeline) };
    let result = select(args, &options, &mut plan).and_then(|()| {
        args.watch.inputs(&plan, seen);
        let review = match check {
            Some(check) => Some(check.review(&pipeline)?),
            None if telling.summarizes() => Some(accepted::on_disk(&pipeline)?),
            None => None,
        };
        let cache = Cache::open(&args.cache.root(&pipeline.folder))?;
        exec::run(&plan, &cache, &Options { review, ..options }, &mut telling)
    });
    let result = result.map_err(|error| fail(error, &mut telling));
    telling.summarize()?;
    result
}

/// Narrows a plan to what was asked for.
fn select(args: &RunArgs, options: &Options, plan: &mut Plan) -> Result<(), RunError> {
    // A job's stage is named as it is, not by a pattern.
    if options.part.as_ref().is_some_and(|part| plan.select_stage(&part.stage)) {
        return Ok(());
    }
    Ok(args.select.apply(plan)?)
}

fn options(args: &RunArgs, pipeline: &Pipeline) -> Options {
    Options {
        force: args.force.clone(),
        locked: match args.locked {
            None => Locked::No,
            Some(Strictness::Portable) => Locked::Portable,
            Some(Strictness::Strict) => Locked::Strict,
        },
        keep_going: args.keep_going,
        jobs: args.jobs.map(|jobs| jobs.get()),
        gpus: args.gpus.clone(),
        best: args.best.clone(),
        executor: executor(args, pipeline),
        no_lock: args.job.no_lock,
        ..Options::default()
    }
}

/// `loss:min` as a figure and which of its values are better.
fn best(text: &str) -> Result<(String, Better), String> {
    let (figure, better) = match text.rsplit_once(':') {
        Some((figure, "min")) => (figure, Better::Lower),
        Some((figure, "max")) => (figure, Better::Higher),
        Some((_, other)) => return Err(format!("`{other}` is neither `min` nor `max`")),
        None => (text, Better::Higher),
    };
    if figure.is_empty() {
        Err("the figure's name is missing".to_owned())
    } else {
        Ok((figure.to_owned(), better))
    }
}

fn executor(args: &RunArgs, pipeline: &Pipeline) -> ExecutorChoice {
    match args.executor {
        Executor::Local => ExecutorChoice::Local,
        Executor::Slurm => ExecutorChoice::Slurm(SlurmOptions {
            sbatch: [&pipeline.slurm.options[..], &args.slurm_option].concat(),
            setup: pipeline.slurm.setup.clone(),
            arguments: [args.pipeline.arguments(), args.remote.arguments()].concat(),
        }),
    }
}

/// What the run is a part of, where it is a job.
fn part(args: &RunArgs) -> Option<Part> {
    let JobArgs { hand_over, definition, force_target: forced, .. } = &args.job;
    let (stage, hand_over) = (args.select.targets.first()?.clone(), hand_over.clone()?);
    Some(Part { stage, hand_over, definition: (*definition)?, forced: *forced })
}

fn exit(summary: &Summary) -> Exit {
    let guards = if summary.broken_guards > 0 { Exit::GuardBroken } else { Exit::Success };
    summary.blame.map_or(guards, Exit::from)
}
