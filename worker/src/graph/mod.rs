//! The ONNX graph as a value: nodes, initializers, attributes; edges are names, as in the standard.

mod model;
mod node;
mod tensor;

pub use model::{Dim, Graph, Model, OpaqueTensor, OperatorSet, ValueInfo};
pub use node::{Attribute, Node};
pub use tensor::{DType, TensorData};
