//! What is wrong, or costs time or accuracy, in how a graph is quantized: where it has its Q/DQ pairs, and operators that are no pairs;
//! ours or a stranger's.
//!
//! A rule is a function in a file of its family and a line of [`RULES`].

mod idle;
mod layers;
mod moved;
mod neighbours;
mod operators;
mod pairs;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use table::{Finding, RULES, Rule, lint};
pub use view::PairView;
