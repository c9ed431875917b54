//! `qpipe`: see [`qpipe`] for the flow and [`qpipe::cli`] for the commands.

use std::process::ExitCode;

/// Files of thousands of stages are small pieces of memory by the hundred thousand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    qpipe::cli::main().into()
}
