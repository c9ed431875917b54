//! The command line, one file a command.

mod cache;
mod check;
mod doctor;
pub mod exit;
mod fail;
mod graph;
mod init;
mod pipeline_args;
mod plan;
mod run;
mod why;

use clap::{Parser, Subcommand};

pub use exit::Exit;
pub use pipeline_args::PipelineArgs;

/// From one TOML file to a quantized, checked, benchmarked INT8 engine and a table of FP32, PTQ
/// and QAT; what did not change is not computed again.
#[derive(Debug, Parser)]
#[command(name = "qpipe", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Why(why::Args),
    Graph(graph::Args),
    Check(check::Args),
    Cache(cache::Args),
    Doctor(doctor::Args),
    Init(init::Args),
}

/// Reads the command line of this process and does what it says.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with their own stream.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            // Nobody is left to tell when even this cannot be printed.
            let _ = error.print();
            return exit;
        }
    };
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Init(args) => init::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_argument_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "`{}` has no help", command.get_name());
        }
    }
}
