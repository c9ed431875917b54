//! What makes quantization after training better, without labels: the PTQ ladder.
//!
//! [`equalize()`] and [`smooth()`] rewrite the float model before it is calibrated; [`reconstruct()`] changes weights and biases of a model with Q/DQ pairs, layer
//! by layer, so that it computes what the float model does.

mod absorb;
mod adaround;
mod bias;
mod block;
mod dropping;
mod equalize;
mod layer;
mod layer_values;
mod reconstruct;
mod region;
mod smooth;
mod walk;
mod weighted;

pub use absorb::{Absorbed, Moments, measured_moments, moments_of_norms};
pub use adaround::{Adaround, Unit};
pub use equalize::{Activation6, Equalized, Pair, equalize};
pub use reconstruct::{Options, Reconstructed, reconstruct};
pub use smooth::{Group, Left, Smoothed, Smoothing, smooth};
