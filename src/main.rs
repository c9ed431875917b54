//! `qpipe`: see [`qpipe`] for the flow and [`qpipe::cli`] for the commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    qpipe::cli::main().into()
}
