//! Which biases become integers.

use crate::graph::{DType, Graph, Node, TensorData};

/// The constant bias of a layer that ONNX Runtime's integer kernels take as 32-bit integers, at the scale `activation × weight`: of a Conv, or of a Gemm
/// without factors, with one dimension. [`crate::passes::plain_products`] brings the others of Gemm into this form; a MatMul has none.
pub fn integer_bias<'g>(graph: &'g Graph, layer: &'g Node) -> Option<(&'g str, &'g TensorData)> {
    let factor = |name: &str| layer.float(name, 1.0).is_ok_and(|factor| factor == 1.0);
    let plain = match layer.op_type.as_str() {
        "Conv" => true,
        "Gemm" => factor("alpha") && factor("beta"),
        _ => false,
    };
    let name = layer.input(2).filter(|_| plain)?;
    let data = graph.initializers.get(name)?;
    (data.dtype == DType::F32 && data.shape.len() == 1).then_some((name, data))
}
