//! Where a runtime wants Q/DQ pairs.
//!
//! A policy says which values each layer reads quantized, and what else is; a new runtime is a file beside
//! `tensorrt.rs` and a line in [`POLICIES`].

mod onnxruntime;
mod pattern;
mod plan;
mod selection;
mod sites;
mod table;
mod tensorrt;
#[cfg(test)]
mod tests;
mod view;

pub use pattern::matches;
pub use plan::{LayerPlan, Plan, Request, TensorPlan, WeightPlan, plan, plan_selected, survey};
pub use selection::Selection;
pub use sites::{Site, Sites, output_axis};
pub use table::{POLICIES, Policy, policy, watched};
pub use view::{View, WEIGHTED};
