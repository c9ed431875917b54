//! `qpipe man`.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Cli, Exit};
use crate::exec::{stderr, stdout};

/// Prints a manual page, or writes all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The command that it is about, such as `run` or `cache gc`. Default: the program.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,

    /// Writes one page a command into this folder instead.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    out: Option<PathBuf>,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe man | man -l -
  qpipe man run | man -l -
  qpipe man --out ~/.local/share/man/man1";

/// Does it.
pub fn run(args: &Args) -> Exit {
    let mut command = Cli::command();
    command.build();
    if let Some(folder) = &args.out {
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(command, folder));
        return match written {
            Ok(()) => Exit::Success,
            Err(error) => {
                stderr::line(format_args!(
                    "error: cannot write manual pages into {}: {error}",
                    folder.display()
                ));
                Exit::Machine
            }
        };
    }
    for name in &args.command {
        let Some(below) = command.find_subcommand(name) else {
            stderr::line(format_args!("error: there is no command `{}`", args.command.join(" ")));
            stderr::line(format_args!("  help: `qpipe --help` lists them"));
            return Exit::Usage;
        };
        command = below.clone();
    }
    let mut page = Vec::new();
    if let Err(error) = Man::new(command).render(&mut page) {
        stderr::line(format_args!("error: {error}"));
        return Exit::Bug;
    }
    stdout::write(&page);
    Exit::Success
}
