//! Inference engines: what a runtime makes of an ONNX file, and how it is run.
//!
//! A new runtime is one file and one line of [`BACKENDS`].

pub mod library;
mod libtorch;
mod note;
mod onnxruntime;
#[cfg(any(test, feature = "tensorrt-rtx"))]
mod rtx_types;
mod shared_weights;
pub mod shown;
mod space_to_depth;
mod table;
mod tapped;
pub mod tensorrt;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_rtx;

use std::path::Path;

use crate::Result;

pub use note::{FurtherOutput, Layer, Note, OnGpu, image_of};
pub use table::{
    BACKENDS, Backend, Build, Built, Clock, Engine, Show, Tell, Threads, Timing, Told, build,
    clock, load, load_noted, shows,
};
pub use tapped::{Tapped, Value};

/// Whether sums in the integer kernels of the engine in `folder` may saturate on this processor: it was built with
/// [`Build::saturate`] and its layers read uint8 values and int8 weights of more than 7 bits.
///
/// # Errors
/// An engine that is gone.
pub fn may_saturate(folder: &Path, note: &Note) -> Result<bool> {
    Ok(saturates()
        && note.backend == "onnxruntime"
        && onnxruntime::has_saturating_kernels(folder, note)?)
}

/// How the engine in `folder` can be made faster on this processor, if that is known.
///
/// # Errors
/// An engine that is gone.
pub fn advice(folder: &Path, note: &Note) -> Result<Option<&'static str>> {
    if note.backend == "onnxruntime" { onnxruntime::advice(folder, note) } else { Ok(None) }
}

/// How a processor adds up products of 8-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Products {
    /// Two in 16 bits, as x86 processors without VNNI do: sums of ONNX Runtime's kernels for uint8 and int8 saturate where weights and
    /// activations are large.
    Saturating,
    /// Four in 32 bits by one instruction of x86 (VNNI).
    Fast,
    /// As other architectures do.
    Other,
}

impl Products {
    /// Of this processor.
    fn here() -> Self {
        match (cfg!(target_arch = "x86_64"), has_vnni()) {
            (true, true) => Self::Fast,
            (true, false) => Self::Saturating,
            (false, _) => Self::Other,
        }
    }
}

/// Whether this is an x86 processor that adds four products of 8-bit integers in 32 bits, in one instruction.
fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx512vnni") || std::is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether this processor adds two products of 8-bit integers in 16 bits, as x86 ones without VNNI do.
pub fn saturates() -> bool {
    Products::here() == Products::Saturating
}
