//! `qpipe graph`.

use super::pipeline_args::SelectArgs;
use super::{Exit, PipelineArgs, fail};
use crate::exec::stdout;
use crate::plan::Plan;

/// Draws the pipeline's graph of stages.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    select: SelectArgs,

    /// What it is drawn for.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What a graph is drawn for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A tree for the terminal.
    Text,
    /// Graphviz.
    Dot,
    /// Mermaid, for Markdown.
    Mermaid,
    /// A picture, for browsers and documents: light and dark, no script.
    Svg,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe graph p.toml
  qpipe graph p.toml --format svg > p.svg
  qpipe graph p.toml qat+ --format mermaid";

/// Does it.
pub fn run(args: &Args) -> Exit {
    let pipeline = match args.pipeline.load() {
        Ok(pipeline) => pipeline,
        Err(exit) => return exit,
    };
    let mut plan = Plan::new(&pipeline);
    if let Err(error) = args.select.apply(&mut plan) {
        return fail::show(&error, Exit::Usage);
    }
    let text = match args.format {
        Format::Text => plan.text(),
        Format::Dot => plan.dot(),
        Format::Mermaid => plan.mermaid(),
        Format::Svg => plan.svg(),
    };
    stdout::write(text.as_bytes());
    Exit::Success
}
