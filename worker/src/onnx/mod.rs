//! ONNX files: read, write and check.

mod attribute;
mod check;
mod data_file;
mod decode;
mod encode;
mod external;
pub mod fuzzing;
mod inline;
mod order;
mod proto;
mod read;
mod recognize;
mod rope;
mod tensor;
mod value_info;
mod wire;
mod within;
mod write;

pub use check::check;
pub use decode::branch;
#[cfg(test)]
pub use encode::graph_attribute;
pub use read::{parse, read};
pub use tensor::parse_tensor;
pub use value_info::{STRINGS, check_numbers, foreign};
pub use within::within;
pub use write::{to_bytes, write, write_one_file};
