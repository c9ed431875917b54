//! The command line, one file a command.

mod accepted;
mod bundle;
mod cache;
mod cancel;
mod check;
mod ci;
mod color;
mod completions;
mod diff;
mod doctor;
pub mod exit;
mod fail;
pub(crate) mod fuzzing;
mod graph;
mod init;
mod log;
mod look;
mod man;
#[cfg(test)]
mod manual;
mod model;
mod pipeline_args;
mod plan;
mod remote;
mod run;
mod schema;
mod show;
mod status;
mod telling;
mod watch;
mod when;
mod why;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exec::{stderr, stdout};

pub use exit::Exit;
pub use pipeline_args::PipelineArgs;

/// From one TOML file to a quantized, checked, benchmarked INT8 engine and a table of FP32, PTQ
/// and QAT; what did not change is not computed again.
#[derive(Debug, Parser)]
#[command(name = "qpipe", version, after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// When to colour: as NO_COLOR, CLICOLOR_FORCE and the terminal say, always, or never.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    color: ColorChoice,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe init mine.toml        # a pipeline to start from
  qpipe plan mine.toml        # what a run would do, and why
  qpipe run mine.toml
  qpipe run mine.toml qat+ --set params.epochs=1";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Cancel(cancel::Args),
    Ci(ci::Args),
    Plan(plan::Args),
    Status(status::Args),
    Why(why::Args),
    Log(log::Args),
    Show(show::Args),
    Diff(diff::Args),
    Graph(graph::Args),
    Check(check::Args),
    Cache(cache::Args),
    Bundle(bundle::Args),
    Unbundle(bundle::UnbundleArgs),
    Model(model::Args),
    Doctor(doctor::Args),
    Init(init::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Reads the command line of this process and does what it says.
pub fn main() -> Exit {
    guarded(command)
}

/// The exit code of a program; where it panics, which its message tells, that of a bug.
fn guarded(program: fn() -> Exit) -> Exit {
    std::panic::catch_unwind(program).unwrap_or_else(|_| {
        stderr::line(format_args!("error: this is a bug in qpipe"));
        stderr::line(format_args!(
            "  help: report it with the lines above and the command: {}/issues",
            env!("CARGO_PKG_REPOSITORY")
        ));
        Exit::Bug
    })
}

fn command() -> Exit {
    let color = color::asked(std::env::args_os());
    let parsed = Cli::command().color(color).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, with their own stream.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            // Nobody is left to tell when even this cannot be printed.
            let _ = error.print();
            return exit;
        }
    };
    color::settle(cli.color);
    let exit = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Cancel(args) => cancel::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Bundle(args) => bundle::pack(&args),
        Command::Unbundle(args) => bundle::unpack(&args),
        Command::Model(args) => model::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Schema(_) => schema::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    // Who reads it would take a part for the whole.
    if exit == Exit::Success && stdout::failed() { Exit::Machine } else { exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug_and_ends_so() {
        assert_eq!(guarded(|| panic!("on purpose")), Exit::Bug);
        assert_eq!(guarded(|| Exit::Pending), Exit::Pending);
    }

    #[test]
    fn every_argument_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_readme_names_what_a_command_consists_of() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
        let readme = readme.unwrap();
        for name in ["cache", "model"] {
            let start = format!("| `qpipe {name} ");
            let row = readme.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
            let named: std::collections::BTreeSet<&str> =
                row.split('`').next().unwrap().split("\\|").collect();
            let cli = Cli::command();
            let below = cli.find_subcommand(name).unwrap().get_subcommands();
            assert_eq!(named, below.map(clap::Command::get_name).collect(), "{row}");
        }
    }

    /// All commands that do something, with their full names.
    fn commands(above: &str, command: &clap::Command) -> Vec<(String, clap::Command)> {
        let name = format!("{above}{}", command.get_name());
        let mut all = vec![(name.clone(), command.clone())];
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            all.extend(commands(&format!("{name} "), below));
        }
        all
    }

    #[test]
    fn every_command_says_what_it_does() {
        for (name, command) in commands("", &Cli::command()) {
            assert!(command.get_about().is_some(), "`{name}` has no help");
        }
    }

    /// A line of a shell in words, up to a comment, a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for letter in line.chars() {
            match letter {
                '"' => quoted = !quoted,
                '#' | '|' | '>' if !quoted && word.is_empty() => break,
                ' ' if !quoted => {
                    words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()))
                }
                letter => word.push(letter),
            }
        }
        words.extend(Some(word).filter(|word| !word.is_empty()));
        words
    }

    #[test]
    fn every_command_has_examples_and_each_can_be_given() {
        for (name, command) in commands("", &Cli::command()) {
            // A command of a family has its examples there.
            if name.starts_with("qpipe cache ") {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.strip_prefix("Examples:\n");
            let examples = examples.unwrap_or_else(|| panic!("`{name}` has no examples"));
            let lines: Vec<&str> = examples.lines().take_while(|line| !line.is_empty()).collect();
            assert!(!lines.is_empty(), "{name}");
            for line in lines {
                let words = words(line.trim());
                assert!(words.join(" ").starts_with(&name), "`{line}` is no example of `{name}`");
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{line}: {error}");
                }
            }
        }
    }
}
