//! Inference engines: what a runtime makes of an ONNX file, and how it is run.
//!
//! A new runtime is one file and one line of [`BACKENDS`].

pub mod library;
mod libtorch;
mod note;
mod onnxruntime;
mod table;
mod tapped;
pub mod tensorrt;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_rtx;

pub use note::{FurtherOutput, Layer, Note, OnGpu};
pub use table::{
    BACKENDS, Backend, Build, Built, Clock, Engine, Tell, Threads, Timing, Told, build, clock, load,
};
pub use tapped::{Tapped, Value};

/// Whether this processor adds two products of 8-bit integers in 16 bits, as x86 ones without VNNI do: sums of ONNX Runtime's kernels
/// for uint8 and int8 then saturate where weights and activations are large.
pub fn saturates() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        !(std::is_x86_feature_detected!("avx512vnni") || std::is_x86_feature_detected!("avxvnni"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
