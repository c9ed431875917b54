//! What is known of values before anything runs: their shapes, and the elements of small vectors of integers, such as those that
//! exporters compute with Shape, Gather and Concat; both as polynomials over the dimensions that a model leaves free.
//!
//! An operator names its [`Rule`] where it is defined; what goes over a graph is [`crate::ops::Shapes`].

mod extent;
mod fact;
pub mod rules;

pub use extent::{Atom, Extent};
pub use fact::{Asked, Fact, Rule, shown};
