//! A pipeline as a graph of stages: order, selection of targets, drawings.

mod dag;
mod dot;
pub(crate) mod fuzzing;
mod mermaid;
mod select;
mod svg;
mod text;

pub use dag::Plan;
pub use select::UnknownTarget;

#[cfg(test)]
pub(crate) use dag::tests::pipeline as test_pipeline;
