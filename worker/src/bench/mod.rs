//! Timing: the protocol, the processors, and the figures.

mod pin;
mod protocol;
mod statistics;

pub use pin::{cpus, pin};
pub use protocol::{Protocol, Timed, noise, time};
pub use statistics::{Latency, percentile};
