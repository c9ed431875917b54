//! What is wrong, or costs time or accuracy, in where a graph has its Q/DQ pairs; ours or a stranger's.
//!
//! A rule is a function in a file of its family and a line of [`RULES`].

mod layers;
mod neighbours;
mod pairs;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use table::{Finding, RULES, Rule, lint};
