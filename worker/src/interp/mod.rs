//! A graph compiled once to a plan of kernels over numbered slots, executed forward on libtorch, with gradients.

mod compile;
mod fuse;
mod parameters;
mod program;
mod state;
mod types;

pub use parameters::{Parameter, Role};
pub use program::{Mode, Options, Program};
