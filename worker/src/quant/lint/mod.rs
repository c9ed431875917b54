//! What is wrong, or costs time or accuracy, in how a graph is quantized: where it has its Q/DQ pairs, and operators that are no pairs;
//! ours or a stranger's.
//!
//! A rule is a function in a file of its family and a line of [`RULES`].

mod idle;
mod layers;
mod moved;
mod neighbours;
mod operators;
mod outputs;
mod pairs;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod view;

pub use table::{Finding, RULES, Rule, lint, lint_as_written};
pub use view::PairView;
