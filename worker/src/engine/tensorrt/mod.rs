//! TensorRT through its own program `trtexec`: builds, times and runs engines on the GPU of this machine.
//!
//! Versions 8.5 to 11, whichever the user has: [`program`] finds it and asks its version, [`command`] and [`flags`] say it in that version's words,
//! [`log`], [`layers`], [`times`] and [`outputs`] read what it says and writes, [`failure`] tells why it failed. Only a run of the program needs a GPU.

mod attempt;
mod benchmark;
mod build;
mod command;
mod failure;
mod flags;
mod gpu;
#[cfg(test)]
mod help_texts;
mod infer;
mod layers;
mod log;
mod outputs;
mod pairs;
mod program;
mod show;
mod times;
mod timing_cache;
mod tune;
pub(super) mod typed;
mod version;

pub use benchmark::time;
#[cfg(feature = "tensorrt-rtx")]
pub use benchmark::{Timed, figures};
pub use build::{Caching, Wishes, build};
pub use gpu::{Gpu, state, used, visible};
pub use infer::load;
pub use program::{Program, files};
pub use show::show;
pub use times::Times;
pub use version::Version;

use attempt::{Attempt, Attempts};
use command::{CommandLine, Source};
use log::Log;
use program::Ended;
use timing_cache::TimingCache;

use crate::Result;

/// What results of TensorRT depend on here, for cache keys: its version, and name, compute capability and driver branch of the GPU that it uses, which
/// is the first that is visible, with its part where it is split (MIG).
///
/// # Errors
/// No trtexec, no GPU.
pub fn fact() -> Result<String> {
    let program = Program::find()?;
    Ok(format!("{} on {}", program.version, used()?.words()))
}
