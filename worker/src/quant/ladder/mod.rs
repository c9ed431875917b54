//! What makes quantization after training better, without labels: the PTQ ladder.
//!
//! [`equalize()`] rewrites the float model before it is calibrated; [`reconstruct()`] changes weights and biases of a model with Q/DQ pairs, layer
//! by layer, so that it computes what the float model does.

mod adaround;
mod bias;
mod equalize;
mod layer;
mod reconstruct;
mod walk;
mod weighted;

pub use adaround::Adaround;
pub use equalize::{Activation6, Equalized, Pair, equalize};
pub use reconstruct::{Options, Reconstructed, reconstruct};
