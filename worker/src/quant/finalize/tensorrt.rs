//! TensorRT: Q and DQ on float weights stay, which it quantizes itself, and biases stay float. It refuses uint8 activations and
//! int32 biases. Weights of int4 are stored, behind a DequantizeLinear: it has int4 for weights only, in blocks of 64 or 128
//! (<https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-schemes.html>).

use qpipe::stages::insert_qdq::Target;

use super::weights;
use crate::graph::{DType, Model, TensorData};
use crate::quant::scheme::is_zero;
use crate::{Error, Result};

pub(super) fn finalize(model: &mut Model, _: Option<Target>) -> Result<()> {
    let graph = &mut model.graph;
    weights::store(graph, &[DType::I4])?;
    for node in &graph.nodes {
        let zero_point = node.input(2).and_then(|name| graph.initializers.get(name));
        let eight = |data: &TensorData| matches!(data.dtype, DType::I8 | DType::F8E4M3FN);
        match (node.op_type.as_str(), zero_point) {
            ("QuantizeLinear", Some(zero)) if eight(zero) && is_zero(zero) => {}
            ("QuantizeLinear", _) => {
                return Err(Error::user(
                    "TensorRT takes int8 and float8e4m3fn with zero point 0 only",
                )
                .at(node.place())
                .help("place the pairs for it: target = \"tensorrt\" in the insert-qdq stage"));
            }
            ("DequantizeLinear", Some(zero)) if zero.dtype == DType::I4 => {
                let blocks = [64, 128].contains(&node.int("block_size", 0)?);
                if !(blocks && is_zero(zero)) {
                    return Err(Error::user(
                        "TensorRT takes int4 in blocks of 64 or 128 with zero point 0 only",
                    )
                    .at(node.place())
                    .help("quantize for it: target = \"tensorrt\" in the insert-qdq stage, weights = { type = \"int4\", granularity = \"per-block\", block_size = 128 }"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
