//! TensorRT in process, through the crate `trtx`: builds engines of ONNX files, runs and times them.
//!
//! One source serves two libraries whose C++ classes differ, so that a program holds one of them:
//! - feature `rtx`: TensorRT-RTX, which qpipe-worker drives as a library ([`build`], [`Session`]);
//! - feature `tensorrt-11`: TensorRT 11, behind the program `qpipe-trtexec`. It takes the flags of trtexec that qpipe passes and writes the same
//!   files, for the TensorRT that pip installs, which has no trtexec.
//!
//! Without either, what needs no library is left: [`options`] and [`files`].

#[cfg(all(feature = "rtx", feature = "tensorrt-11"))]
compile_error!(
    "one program holds either TensorRT-RTX (feature `rtx`) or TensorRT 11 (feature `tensorrt-11`): build them one after the other"
);

#[cfg(feature = "bindings")]
mod builder;
mod error;
pub mod files;
pub mod library;
#[cfg(feature = "bindings")]
mod logger;
pub mod options;
#[cfg(feature = "tensorrt-11")]
mod plugins;
#[cfg(feature = "bindings")]
mod queries;
#[cfg(feature = "bindings")]
mod session;

#[cfg(feature = "rtx")]
pub use builder::{ComputeCapability, capability};
#[cfg(feature = "bindings")]
pub use builder::{Plan, Profile, build};
pub use error::{Error, Result};
#[cfg(feature = "bindings")]
pub use logger::{Listener, Severity};
#[cfg(feature = "tensorrt-11")]
pub use plugins::register as register_plugins;
#[cfg(feature = "bindings")]
pub use queries::Protocol;
#[cfg(feature = "bindings")]
pub use session::Session;

/// Name and compute capability of the first visible GPU.
///
/// # Errors
/// No driver, no GPU.
#[cfg(feature = "bindings")]
pub fn gpu() -> Result<(String, String)> {
    queries::Gpu::open()?.words()
}

/// Opens the library, once in a process.
///
/// # Errors
/// One that does not load.
#[cfg(feature = "bindings")]
pub fn open(path: &std::path::Path) -> Result<()> {
    trtx::dynamically_load_tensorrt(Some(path)).map_err(|error| broken(path, &error))
}

/// Opens the library's ONNX parser, which only builds need, once in a process.
///
/// # Errors
/// One that does not load.
#[cfg(feature = "bindings")]
pub fn open_parser(path: &std::path::Path) -> Result<()> {
    trtx::dynamically_load_tensorrt_onnxparser(Some(path)).map_err(|error| broken(path, &error))
}

#[cfg(feature = "bindings")]
fn broken(path: &std::path::Path, error: &trtx::Error) -> Error {
    Error::Library { what: path.display().to_string(), reason: error.to_string() }
}
