//! Mixed precision: which layers to leave in float, by measured latency and error.
//!
//! [`explore`] asks a [`Lab`], which builds, times and compares candidates; what it asks for is decided by [`greedy`] on figures alone, so that
//! it can be tested without engines. The [`Limits`] choose among what was measured.

mod chosen;
mod closure;
mod drawing;
mod explore;
#[cfg(test)]
mod fixture;
mod front;
mod greedy;
mod limits;
mod pareto;
mod refine;
#[cfg(test)]
mod tests;

pub use chosen::{Chosen, fragment};
pub use closure::Closure;
pub use drawing::{markdown, svg};
pub use explore::{Asked, Found, Lab, Set, Trial, explore};
pub use front::front;
pub use greedy::{Layer, knee, order, rungs};
pub use limits::{Limits, Missed, Point, decibels, lost};
pub use pareto::{Candidate, OnEngine, Pareto, Setting, Spread, VERSION};
