//! ONNX files: read, write and check.

mod check;
mod decode;
mod encode;
mod external;
mod fields;
mod proto;
mod read;
mod tensor;
mod write;

pub use check::check;
pub use read::{parse, read};
pub use tensor::parse_tensor;
pub use write::{to_bytes, write};
