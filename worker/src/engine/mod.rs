//! Inference engines: what a runtime makes of an ONNX file, and how it is run.
//!
//! A new runtime is one file and one line of [`BACKENDS`].

pub mod library;
mod note;
mod onnxruntime;
mod table;
mod tapped;
pub mod tensorrt;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_rtx;

pub use note::{Layer, Note, OnGpu};
pub use table::{BACKENDS, Backend, Build, Built, Engine, Tell, Threads, Told, build, load, timer};
pub use tapped::{Tapped, Value};
