//! `qpipe completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit};
use crate::exec::stdout;

/// Prints a script that completes commands and options in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe completions bash > ~/.local/share/bash-completion/completions/qpipe
  qpipe completions zsh > ~/.zfunc/_qpipe     # with fpath+=~/.zfunc before compinit
  qpipe completions fish > ~/.config/fish/completions/qpipe.fish";

/// Does it.
pub fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "qpipe", &mut script);
    stdout::write(&script);
    Exit::Success
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_shell_has_a_script_that_knows_commands_and_options() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "qpipe", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["doctor", "completions", "keep-going", "exclude"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
