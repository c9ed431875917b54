//! What is observed of a tensor during calibration, and how a method chooses `amax` from it.
//!
//! A new method is a file beside `mse.rs` and a line in [`METHODS`].

mod collect;
mod count;
mod entropy;
mod fine;
mod histogram;
mod max;
mod mse;
mod on_device;
mod percentile;
mod table;
#[cfg(test)]
mod vectors;

pub use collect::{Collector, Exact, Growing, Observed};
pub use count::{Extent, NotFinite};
pub use histogram::Histogram;
pub use on_device::OnDevice;
pub use table::{METHODS, Rule, Settings, amax};
