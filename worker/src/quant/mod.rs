//! Quantization: ranges of tensors from calibration images, placement of Q/DQ pairs by a runtime's rules,
//! their insertion, and the form in which they are exported.

pub mod best;
pub mod bias;
pub mod calibrate;
pub mod finalize;
#[cfg(test)]
pub mod fixture;
pub mod formats;
pub mod grid;
pub mod insert;
pub mod ladder;
pub mod lint;
mod observe;
pub mod observer;
pub mod placement;
pub mod prepare;
pub mod quantized;
pub mod ranges;
pub mod scheme;
mod weights;
