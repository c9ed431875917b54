//! A float model whose constants are float16, as `model.half()` makes it.

use std::collections::HashSet;

use crate::graph::{Attribute, DType, Model};
use crate::{Error, Result, torch};

/// Operators whose float32 inputs but the first are numbers that the CPU reads, not values that are computed with.
const READ_BY_THE_CPU: &[&str] = &["Resize", "Upsample"];
/// ONNX's numbers of float32 and float16.
const FLOAT: i64 = 1;
const FLOAT16: i64 = 10;

/// The model with float16 constants; it takes and gives float16.
///
/// # Errors
/// Q/DQ pairs, whose scales would lose digits.
pub fn model(model: &Model) -> Result<Model> {
    let mut model = model.clone();
    let graph = &mut model.graph;
    if let Some(node) = graph.nodes.iter().find(|node| node.op_type == "QuantizeLinear") {
        return Err(Error::user(
            "precision = \"fp16\" of a model with Q/DQ pairs, which libtorch simulates in float32",
        )
        .help("build the float model in fp16, or leave `precision` out")
        .key("precision")
        .at(node.place()));
    }
    let kept: HashSet<&String> = graph
        .nodes
        .iter()
        .filter(|node| READ_BY_THE_CPU.contains(&node.op_type.as_str()))
        .flat_map(|node| node.inputs.iter().skip(1))
        .collect();
    for (name, data) in &mut graph.initializers {
        if data.dtype == DType::F32 && !kept.contains(name) {
            let tensor = torch::to_tensor(data, tch::Device::Cpu)?.f_to_kind(tch::Kind::Half)?;
            *data = torch::tensor_data(&tensor)?;
        }
    }
    for node in graph.nodes.iter_mut().filter(|node| node.op_type == "Cast") {
        if node.int("to", 0)? == FLOAT {
            *node = node.clone().with("to", Attribute::Int(FLOAT16));
        }
    }
    Ok(model)
}
