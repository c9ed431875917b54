//! Pairs by themselves.

use super::table::Found;
use super::view::PairView;
use crate::graph::DType;

/// Values that are quantized right after they were dequantized.
pub(super) fn double<'a>(view: &PairView<'a>) -> Found<'a> {
    let quantizes = view.graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    quantizes
        .filter_map(|node| {
            let before = view.dequantize(node.input(0)?)?;
            let same =
                view.parameters(node).is_some_and(|own| view.parameters(before) == Some(own));
            let scales = if same { "the same scale" } else { "another scale" };
            Some((
                node,
                format!(
                    "quantizes what \"{}\" has just dequantized, with {scales}",
                    before.label()
                ),
            ))
        })
        .collect()
}

/// Zero points other than 0, and unsigned types.
pub(super) fn zero_point<'a>(view: &PairView<'a>) -> Found<'a> {
    let nodes = view.graph.nodes.iter();
    let quantizes = nodes
        .filter(|node| ["QuantizeLinear", "DequantizeLinear"].contains(&node.op_type.as_str()));
    quantizes
        .filter_map(|node| {
            let Some(zero) = node.input(2).and_then(|name| view.constant(name)) else {
                // Without one a QuantizeLinear gives uint8.
                let typed = node.op_type == "DequantizeLinear"
                    || node.attributes.contains_key("output_dtype");
                return (!typed).then(|| (node, "has no zero point: its type is uint8".to_owned()));
            };
            let other = zero.whole_numbers()?.into_iter().find(|&zero| zero != 0);
            match (zero.dtype, other) {
                // Biases, which ONNX Runtime wants.
                (DType::I32, _) => {
                    Some((node, "is an int32 bias, which TensorRT refuses".to_owned()))
                }
                (_, Some(zero)) => Some((node, format!("has zero point {zero}"))),
                (DType::U8, None) => Some((node, "is uint8".to_owned())),
                _ => None,
            }
        })
        .collect()
}
