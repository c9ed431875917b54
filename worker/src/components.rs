//! What this program needs of the machine, and what of it results depend on.

use std::path::Path;

use qpipe::stages::contract::Fact;
use qpipe::task::Component;

use crate::engine::{library, tensorrt};
use crate::{Error, Result, torch};

/// The value of a fact, for cache keys; `gpu`: number of the one that a stage names, where it names one.
///
/// # Errors
/// A library that is not there; facts that the runner knows itself.
pub fn fact(fact: Fact, gpu: usize) -> Result<String> {
    match fact {
        Fact::Libtorch | Fact::LibtorchCpu | Fact::LibtorchCuda => {
            let (path, version) = torch::loaded()?;
            let key = match fact {
                Fact::LibtorchCpu => "cpu",
                Fact::LibtorchCuda => &format!("cuda:{gpu}"),
                _ => "auto",
            };
            if fact == Fact::LibtorchCuda && torch::gpus() == 0 {
                return Err(Error::machine(format!(
                    "`device` asks for a GPU, and libtorch finds none: {}",
                    torch::why_no_gpu()
                ))
                .help("device = \"auto\" takes a GPU only where there is one"));
            }
            let on = match torch::find_device(key)? {
                tch::Device::Cpu => String::new(),
                device => format!(" on {}", device_name(device)),
            };
            Ok(format!("{version} {}{on}", fingerprint(Path::new(&path))?))
        }
        Fact::OnnxRuntime => {
            let path = library::onnxruntime()?;
            Ok(format!("{} {}", library::onnxruntime_version(&path)?, fingerprint(&path)?))
        }
        Fact::TensorRtRtx => {
            let path = tensorrt_rtx()?;
            Ok(fingerprint(&path)?)
        }
        Fact::TensorRt => tensorrt::fact(),
        Fact::NvidiaGpu => Ok(tensorrt::used()?.words()),
        Fact::Cpu | Fact::Host => Err(Error::bug(format!("{fact:?} is not the worker's to tell"))),
    }
}

/// Files that a fact was read from, whose change makes it stale.
pub fn files(fact: Fact) -> Vec<std::path::PathBuf> {
    let found = match fact {
        Fact::Libtorch | Fact::LibtorchCpu | Fact::LibtorchCuda => {
            torch::loaded().map(|(path, _)| path.into())
        }
        Fact::OnnxRuntime => library::onnxruntime(),
        Fact::TensorRtRtx => library::tensorrt_rtx(),
        Fact::TensorRt => return tensorrt::files(),
        Fact::Cpu | Fact::Host | Fact::NvidiaGpu => return Vec::new(),
    };
    found.into_iter().collect()
}

/// The GPU's model, as libtorch finds it, and its driver; `cuda:0` where one of them is not told.
pub fn device_name(device: tch::Device) -> String {
    let tch::Device::Cuda(index) = device else { return "the CPU".to_owned() };
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver = driver.and_then(|text| torch::driver_version(&text));
    match (torch::gpu_name(index), driver) {
        (Some(model), Some(driver)) => format!("{model}, driver {driver}"),
        _ => format!("cuda:{index}"),
    }
}

/// File name and size: a library of the same version built otherwise differs in its size.
fn fingerprint(path: &Path) -> Result<String> {
    let bytes = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{name} {bytes}"))
}

/// The TensorRT-RTX library, where this program can use it.
fn tensorrt_rtx() -> Result<std::path::PathBuf> {
    if cfg!(feature = "tensorrt-rtx") {
        library::tensorrt_rtx()
    } else {
        Err(Error::machine("this qpipe-worker was built without it")
            .help("`make build-tensorrt-rtx` in qpipe's sources builds one with it (docs/tensorrt-rtx.md)"))
    }
}

/// All components, for `qpipe doctor`.
pub fn all() -> Vec<Component> {
    let component = |name: &str, required, found: Result<(String, String)>, help: &str| match found
    {
        Ok((path, version)) => Component {
            name: name.to_owned(),
            version: Some(version),
            path: Some(path.into()),
            required,
            help: help.to_owned(),
        },
        Err(error) => Component {
            name: name.to_owned(),
            version: None,
            path: None,
            required,
            help: match &error.help {
                Some(help) => format!("{}; {help}", error.message),
                None => error.message.clone(),
            },
        },
    };
    let onnxruntime = library::onnxruntime().and_then(|path| {
        let version = library::onnxruntime_version(&path)?;
        Ok((path.display().to_string(), version))
    });
    let trtexec = tensorrt::Program::find()
        .map(|program| (program.path.display().to_string(), program.version.to_string()));
    let rtx = tensorrt_rtx().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = name.split(".so.").nth(1).unwrap_or("unknown").to_owned();
        (path.display().to_string(), version)
    });
    vec![
        component(
            Fact::Libtorch.words(),
            true,
            torch::loaded(),
            "LIBTORCH=/path/to/libtorch at build time names your own (2.11)",
        ),
        component(
            Fact::OnnxRuntime.words(),
            true,
            onnxruntime,
            "ORT_DYLIB_PATH=/path/to/libonnxruntime.so names your own (1.24 or later)",
        ),
        component(
            Fact::TensorRt.words(),
            false,
            trtexec,
            "TENSORRT_DIR=/path/to/TensorRT or TRTEXEC=/path/to/trtexec names your own (8.5 or later)",
        ),
        component(
            Fact::TensorRtRtx.words(),
            false,
            rtx,
            "TENSORRT_RTX_DIR=/path/to/lib names your own",
        ),
        gpu(),
    ]
}

fn gpu() -> Component {
    let gpus = torch::gpus();
    let version = (gpus > 0).then(|| {
        let cuda =
            torch::cuda_version().map_or(String::new(), |version| format!(", CUDA {version}"));
        let names = (0..gpus).map(|index| device_name(tch::Device::Cuda(index)));
        format!("{}{cuda}", counted(names))
    });
    let help = if gpus > 0 {
        "device = \"auto\", \"cpu\" or \"cuda:N\" in a stage, or QPIPE_DEVICE, chooses".to_owned()
    } else {
        format!("optional: stages run on the CPU without one. {}", torch::why_no_gpu())
    };
    Component { name: "CUDA GPU".to_owned(), version, path: None, required: false, help }
}

/// `2 × A100, 1 × T4`: names that follow one another and are the same are told once.
fn counted(names: impl IntoIterator<Item = String>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for name in names {
        match counts.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => counts.push((name, 1)),
        }
    }
    let words = counts.iter().map(|(name, count)| format!("{count} × {name}"));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_gpu_is_told() {
        let names = ["A100, driver 550", "A100, driver 550", "T4, driver 550"].map(str::to_owned);
        assert_eq!(counted(names), "2 × A100, driver 550, 1 × T4, driver 550");
    }

    #[test]
    fn the_loaded_libtorch_is_the_one_that_tch_belongs_to() {
        let (path, version) = torch::loaded().unwrap();
        assert!(path.starts_with('/'), "{path}");
        assert!(version.starts_with(torch::LIBTORCH), "{version}");
        let fact = fact(Fact::Libtorch, 0).unwrap();
        assert!(fact.contains("libtorch_cpu.so "), "{fact}");
        let on_cpu = super::fact(Fact::LibtorchCpu, 0).unwrap();
        assert!(!on_cpu.contains(" on ") && fact.starts_with(&on_cpu), "{on_cpu}");
        if torch::gpus() == 0 {
            let error = super::fact(Fact::LibtorchCuda, 0).unwrap_err();
            assert!(error.message.contains("libtorch finds none"), "{}", error.message);
        }
    }

    /// Whether the library is there or not.
    #[cfg(not(feature = "tensorrt-rtx"))]
    #[test]
    fn a_worker_without_tensorrt_rtx_does_not_tell_its_fact() {
        let error = fact(Fact::TensorRtRtx, 0).unwrap_err();
        assert!(error.message.contains("built without it"), "{}", error.message);
    }
}
