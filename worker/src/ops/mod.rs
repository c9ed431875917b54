//! Operators, one file an operator or close family, and the table of them.
//!
//! A file states where the operator is specified, the opsets in which it changed, and what of it is refused;
//! its `prepare` reads a node's attributes once and gives the kernel that runs it. A new operator is one
//! constant in a file of `standard` and one line there.

mod activation;
mod arithmetic;
pub mod batch_norm;
mod conv;
mod gemm;
mod global_pool;
mod identity;
mod kernel;
mod layer_norm;
mod part;
mod pool;
pub mod quantize;
mod rearrange;
mod reduce;
mod reshape;
mod shape;
mod softmax;
mod standard;
mod table;
mod unary;
mod window;

pub use kernel::{Arguments, Gradient, Kernel, Op, Prepare};
pub use table::{OPSETS, all, find, first_version};
