//! Arguments of all commands that read a pipeline file.

use std::path::PathBuf;

/// Which pipeline, and what to change in it.
#[derive(Clone, Debug, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Overrides a value, such as `params.epochs=5` or `stages.qat.epochs=5`; the value is TOML,
    /// or plain text. May be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}
