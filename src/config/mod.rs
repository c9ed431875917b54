//! From TOML text to a typed pipeline, every mistake shown at its place.

mod pipeline;

pub use pipeline::{Data, Origin, Pipeline, ResolvedInput, StageCell};
