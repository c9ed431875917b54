//! Timing: the protocol, the processors, and the figures.

mod others;
mod pin;
mod protocol;
mod side_by_side;
mod statistics;

pub use others::{NOTABLE, Others};
pub use pin::{cpus, pin};
pub use protocol::{Protocol, Timed, noise, time};
pub use side_by_side::{Clock, Ratio, Rounds, clock, median, side_by_side, steady};
pub use statistics::{Latency, percentile};
