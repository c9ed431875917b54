//! Inference engines.

pub mod library;
