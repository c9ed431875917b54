//! TensorRT: Q and DQ on float weights stay, biases stay float. It refuses uint8 activations and
//! int32 biases.

use qpipe::stages::insert_qdq::Target;

use crate::graph::{DType, Model};
use crate::{Error, Result};

pub(super) fn finalize(model: &mut Model, _: Option<Target>) -> Result<()> {
    let graph = &model.graph;
    for node in graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear") {
        let zero_point = node.input(2).and_then(|name| graph.initializers.get(name));
        let fits = zero_point
            .is_some_and(|data| data.dtype == DType::I8 && data.bytes.iter().all(|&b| b == 0));
        if !fits {
            return Err(Error::user("TensorRT takes int8 with zero point 0 only")
                .at(node.place())
                .help("place the pairs for it: target = \"tensorrt\" in the insert-qdq stage"));
        }
    }
    Ok(())
}
