//! What makes quantization after training better, without labels: the PTQ ladder.
//!
//! [`equalize()`] rewrites the float model before it is calibrated.

mod equalize;
mod weighted;

pub use equalize::{Activation6, Equalized, Pair, equalize};
