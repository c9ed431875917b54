//! Where a runtime wants Q/DQ pairs.
//!
//! A [`Policy`] is a list of named [`Rule`]s: which values a node reads quantized, or why it stays float. A new rule is an
//! entry in the file of its family (`rules/`) and a name in the lists of the runtimes that it holds for; a new runtime is a file
//! beside `tensorrt.rs` and a line in [`POLICIES`]. `docs/placement.md` has all of them with their reasons.

#[cfg(test)]
mod document;
mod nothing;
mod onnxruntime;
mod pattern;
mod plan;
mod region;
mod rule;
mod rules;
mod selection;
mod sites;
mod stack;
mod table;
mod tensorrt;
#[cfg(test)]
mod tests;
mod view;

pub use nothing::{nothing_left, quantizes};
pub use pattern::matches;
pub use plan::{
    LayerPlan, Plan, Request, TensorPlan, WeightPlan, plan, plan_for, plan_selected, survey,
};
pub use rule::{Rule, Scene, Verdict};
pub use selection::Selection;
pub use sites::{Site, Sites, output_axis};
pub use stack::{has_one_scale, is_stack, one_scale_serves};
pub use table::{POLICIES, Policy, policy, watched};
pub use view::View;
