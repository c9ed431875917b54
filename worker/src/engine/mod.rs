//! Inference engines: what a runtime makes of an ONNX file, and how it is run.
//!
//! A new runtime is one file and one line of [`BACKENDS`].

pub mod library;
mod note;
mod onnxruntime;
mod table;
mod tapped;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_rtx;

pub use note::{Layer, Note};
pub use table::{BACKENDS, Backend, Build, Built, Engine, Threads, build, load};
pub use tapped::{Tapped, Value};
