//! Where libtorch computes: the CPU, or a GPU.

use std::sync::OnceLock;

use qpipe::stages::device::there_are;
use tch::Device;

use super::shim;
use crate::{Error, Result};

/// Environment variable that says where, for stages whose key `device` does not: `auto` (a GPU where there is one; the default), `cpu`, `cuda`
/// or `cuda:N`.
pub const DEVICE_VARIABLE: &str = "QPIPE_DEVICE";

static CHOSEN: OnceLock<Device> = OnceLock::new();

/// Why libtorch's part for GPUs could not be opened.
static NOT_OPENED: OnceLock<String> = OnceLock::new();

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
    match opened {
        Ok(library) => std::mem::forget(library),
        Err(error) => {
            let _ = NOT_OPENED.set(error.to_string());
        }
    }
}

/// Where this process computes: the CPU until [`open_device`] chose.
pub fn device() -> Device {
    CHOSEN.get().copied().unwrap_or(Device::Cpu)
}

/// Chooses for the rest of the process: what the stage's key `device` says, or, where that is `auto`, [`DEVICE_VARIABLE`].
///
/// # Errors
/// A word that is none of these; a GPU that is not there.
pub fn open_device(key: &str) -> Result<Device> {
    let chosen = find_device(key)?;
    Ok(*CHOSEN.get_or_init(|| chosen))
}

/// What [`open_device`] would choose.
///
/// # Errors
/// As there.
pub fn find_device(key: &str) -> Result<Device> {
    let gpus = gpus();
    if !matches!(key, "" | "auto") {
        return choose("device", key, gpus).map_err(|error| error.key("device"));
    }
    choose(DEVICE_VARIABLE, &std::env::var(DEVICE_VARIABLE).unwrap_or_default(), gpus)
}

/// GPUs that libtorch can use.
pub fn gpus() -> usize {
    if tch::Cuda::is_available() {
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    } else {
        0
    }
}

/// Name of a GPU, as libtorch finds it; with its profile where it is a part of one (MIG).
pub fn gpu_name(index: usize) -> Option<String> {
    (index < gpus()).then(|| shim::gpu_name(index)).flatten()
}

/// Version of the CUDA that libtorch was built with, such as `12.8`.
pub fn cuda_version() -> Option<String> {
    let version = shim::cuda_version();
    (version > 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// Why libtorch has no GPU, and what to do.
pub fn why_no_gpu() -> String {
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
    reason(
        NOT_OPENED.get().map(String::as_str),
        driver.as_deref(),
        std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(),
        cuda_version().as_deref(),
    )
}

fn reason(
    not_opened: Option<&str>,
    driver: Option<&str>,
    visible: Option<&str>,
    cuda: Option<&str>,
) -> String {
    let cuda = cuda.unwrap_or("its CUDA");
    match (not_opened, driver, visible) {
        (_, None, _) => "no NVIDIA driver is loaded (/proc/driver/nvidia/version is not there)".to_owned(),
        (Some(error), _, _) if error.contains("libtorch_cuda.so") && error.contains("No such file") => {
            "there is a driver, but this libtorch is built for CPUs (no libtorch_cuda.so beside it): take the CUDA form of libtorch, and put its `lib` on LD_LIBRARY_PATH".to_owned()
        }
        (Some(error), _, _) => format!("libtorch_cuda.so cannot be opened: {error}"),
        (None, _, Some("" | "-1")) => "CUDA_VISIBLE_DEVICES hides all GPUs".to_owned(),
        (None, Some(driver), _) => format!(
            "libtorch (CUDA {cuda}) finds none: {} may be too old for it, or CUDA_VISIBLE_DEVICES names none that is there",
            driver_version(driver).map_or_else(|| "the driver".to_owned(), |v| format!("driver {v}")),
        ),
    }
}

/// The driver's version, of its file `version`.
pub fn driver_version(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let version = words.find(|w| w.contains('.') && w.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned)
}

fn choose(asker: &str, word: &str, gpus: usize) -> Result<Device> {
    let there = |index: usize| {
        if index < gpus {
            return Ok(Device::Cuda(index));
        }
        let asked = if asker == "device" {
            format!("device = \"{word}\"")
        } else {
            format!("{asker} = {word}")
        };
        let found = match gpus {
            0 => "libtorch finds none".to_owned(),
            _ => there_are(gpus),
        };
        let auto = if asker == "device" { "device = \"auto\"" } else { "QPIPE_DEVICE=auto" };
        Err(Error::machine(format!("{asked} asks for GPU {index}, {found}")).help(format!(
            "`qpipe doctor` says what there is and what is missing; {auto} takes a GPU only where there is one"
        )))
    };
    match word {
        "" | "auto" => Ok(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cpu" => Ok(Device::Cpu),
        "cuda" => there(0),
        other => match other.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => there(index),
            _ => Err(Error::user(format!("{asker} = {other}, expected auto, cpu, cuda or cuda:N"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_taken_where_there_is_one_and_missed_where_it_was_asked_for() {
        let choose = |word, gpus| choose(DEVICE_VARIABLE, word, gpus);
        assert_eq!(choose("", 0).unwrap(), Device::Cpu);
        assert_eq!(choose("auto", 2).unwrap(), Device::Cuda(0));
        assert_eq!(choose("cpu", 2).unwrap(), Device::Cpu);
        assert_eq!(choose("cuda:1", 2).unwrap(), Device::Cuda(1));
        assert!(choose("cuda", 0).unwrap_err().message.contains("libtorch finds none"));
        assert!(choose("cuda:2", 2).unwrap_err().message.contains("there are 2: cuda:0 to cuda:1"));
        assert!(
            choose("gpu", 2).unwrap_err().message.contains("expected auto, cpu, cuda or cuda:N")
        );
    }

    #[test]
    fn the_key_of_a_stage_is_named_in_its_error() {
        let error = choose("device", "cuda:1", 1).unwrap_err();
        assert_eq!(error.message, "device = \"cuda:1\" asks for GPU 1, there is one: cuda:0");
        assert!(error.help.unwrap().contains("device = \"auto\""));
        assert_eq!(find_device("cpu").unwrap(), Device::Cpu);
        assert_eq!(find_device("cuda:999").unwrap_err().key, Some("device"));
    }

    #[test]
    fn the_doctor_tells_a_missing_driver_from_a_libtorch_for_cpus() {
        let driver = Some("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar");
        let missing = "libtorch_cuda.so: cannot open shared object file: No such file or directory";
        assert!(reason(Some(missing), None, None, None).starts_with("no NVIDIA driver"));
        assert!(reason(Some(missing), driver, None, None).contains("is built for CPUs"));
        let other = "libcublas.so.12: cannot open shared object file: No such file or directory";
        assert!(reason(Some(other), driver, None, None).ends_with(other));
        assert!(reason(None, driver, Some(""), None).contains("hides all GPUs"));
        let old = reason(None, driver, None, Some("12.8"));
        assert!(old.contains("CUDA 12.8") && old.contains("driver 550.54.15"), "{old}");
    }
}
