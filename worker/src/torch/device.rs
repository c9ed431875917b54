//! Where libtorch computes: the CPU, or a GPU.

use std::sync::OnceLock;

use tch::Device;

use crate::{Error, Result};

/// Environment variable that says where: `auto` (a GPU where there is one; the default), `cpu`, `cuda` or `cuda:N`.
pub const DEVICE_VARIABLE: &str = "QPIPE_DEVICE";

static CHOSEN: OnceLock<Device> = OnceLock::new();

/// libtorch's part for GPUs, which the linker drops because nothing names it; without a GPU it is not there.
/// It must be open before anything asks for CUDA.
pub fn open_cuda() {
    // SAFETY: libtorch's own library; its initialisers register its kernels.
    let opened = unsafe {
        libloading::os::unix::Library::open(
            Some("libtorch_cuda.so"),
            libloading::os::unix::RTLD_NOW | libloading::os::unix::RTLD_GLOBAL,
        )
    };
    if let Ok(library) = opened {
        std::mem::forget(library);
    }
}

/// Where this process computes: the CPU until [`open_device`] chose.
pub fn device() -> Device {
    CHOSEN.get().copied().unwrap_or(Device::Cpu)
}

/// Chooses, for the rest of the process, what [`DEVICE_VARIABLE`] says.
///
/// # Errors
/// A word that is none of these; a GPU that is not there.
pub fn open_device() -> Result<Device> {
    let word = std::env::var(DEVICE_VARIABLE).unwrap_or_default();
    let gpus = if tch::Cuda::is_available() {
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    } else {
        0
    };
    let chosen = choose(&word, gpus)?;
    Ok(*CHOSEN.get_or_init(|| chosen))
}

fn choose(word: &str, gpus: usize) -> Result<Device> {
    let there = |index: usize| {
        if index < gpus {
            return Ok(Device::Cuda(index));
        }
        let found =
            if gpus == 0 { "libtorch finds none".to_owned() } else { format!("there are {gpus}") };
        Err(Error::machine(format!("{DEVICE_VARIABLE} = {word} asks for GPU {index}, {found}"))
            .help("`qpipe doctor` says what is missing; QPIPE_DEVICE=auto takes a GPU only where there is one"))
    };
    match word {
        "" | "auto" => Ok(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cpu" => Ok(Device::Cpu),
        "cuda" => there(0),
        other => match other.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => there(index),
            _ => Err(Error::user(format!(
                "{DEVICE_VARIABLE} = {other}, expected auto, cpu, cuda or cuda:N"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_taken_where_there_is_one_and_missed_where_it_was_asked_for() {
        assert_eq!(choose("", 0).unwrap(), Device::Cpu);
        assert_eq!(choose("auto", 2).unwrap(), Device::Cuda(0));
        assert_eq!(choose("cpu", 2).unwrap(), Device::Cpu);
        assert_eq!(choose("cuda:1", 2).unwrap(), Device::Cuda(1));
        assert!(choose("cuda", 0).unwrap_err().message.contains("libtorch finds none"));
        assert!(choose("cuda:2", 2).unwrap_err().message.contains("there are 2"));
        assert!(
            choose("gpu", 2).unwrap_err().message.contains("expected auto, cpu, cuda or cuda:N")
        );
    }
}
