//! The worker of qpipe: one stage, done.
//!
//! A model is an ONNX graph from the first stage to the last: read and written by [`onnx`], held by
//! [`graph`], built by [`zoo`], rewritten by [`passes`], executed and differentiated by [`interp`]
//! with one file an operator in [`ops`], on libtorch behind [`torch`]; [`shapes`] is what is known of its values before. Upon that stand the work,
//! [`quant`], [`data`], [`train`], [`detection`], [`engine`], [`bench`] and [`search`], and the [`stages`] that do it.
//!
//! Imports go downwards only: stages → the work → the model → torch.

pub mod analysis;
pub mod bench;
pub mod components;
pub mod data;
pub mod detection;
pub mod engine;
pub mod error;
pub mod graph;
pub mod inspect;
pub mod interp;
pub mod onnx;
pub mod ops;
pub mod passes;
pub mod quant;
pub mod search;
pub mod shapes;
pub mod stages;
pub mod torch;
pub mod train;
pub mod zoo;

pub use error::{Error, Result};
