//! Networks built here: builders that write an ONNX graph with torchvision's names and its way of
//! starting weights. A new family is a file beside `resnet.rs` and a line in the match of [`build()`].

mod build;
mod builder;
mod init;
mod mobilenet;
mod pickle;
mod resnet;
mod weights;

pub use build::{INPUT, OPSET, OUTPUT, build};
