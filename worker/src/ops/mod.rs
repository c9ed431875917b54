//! Operators, one file an operator, and the table of them.
//!
//! The files are in `standard`; what several of them share is here. A file states where the operator is
//! specified, the opsets in which it changed, and what of it is refused; its `prepare` reads a node's attributes
//! once and gives the kernel that runs it. A new operator is one file there and one line.

pub mod conversion;
mod convolution;
mod document;
mod elementwise;
mod extremum;
mod fake_quantize;
mod flattened;
mod float_rounding;
mod indexing;
mod integers;
mod interpolation;
mod kernel;
mod live_scale;
mod moved;
mod normalization;
mod pooling;
pub mod quantization;
mod reduction;
mod scatter_reduction;
mod shapes;
mod standard;
mod table;
mod window;

pub use document::document;
pub use fake_quantize::FakeQuantize;
pub use kernel::{Arguments, Gradient, Kernel, Op, Prepare};
pub use moved::check_moved;
pub use shapes::{Misfit, Shapes};
pub use standard::running_statistics;
pub use table::{OPSETS, WEIGHTED, all, find, first_version, not_found};
