//! The GPUs that this process may use, as their driver tells them.

pub use qpipe::exec::nvidia::{Gpu, state};

use qpipe::exec::nvidia;

use super::failure;
use crate::{Error, Result};

/// The GPUs that this process may use (`CUDA_VISIBLE_DEVICES`), in CUDA's order; none where there is no driver.
///
/// # Errors
/// A driver that does not answer.
pub fn visible() -> Result<Vec<Gpu>> {
    let names = std::env::var(nvidia::VISIBLE).ok();
    nvidia::gpus(names.as_deref()).map_err(|told| {
        Error::machine(told)
            .help("run `nvidia-smi` by hand; where it hangs too, the machine must be started anew")
    })
}

/// The one that trtexec uses: the first.
///
/// # Errors
/// None there, a driver that does not answer.
pub fn used() -> Result<Gpu> {
    visible()?.into_iter().next().ok_or_else(failure::no_gpu)
}
