//! Pairs whose integers nothing computes with, and what computes in float although integers are on both sides.

use std::collections::HashSet;

use qpipe::stages::insert_qdq::Target;

use super::layers::before;
use super::table::Found;
use super::view::PairView;
use crate::graph::Node;

/// Operators that TensorRT computes in float, whatever stands before them.
const FLOAT: [&str; 8] = [
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Exp",
    "Log",
    "Sqrt",
];

/// Pairs whose value goes to nothing but such operators, or out of the graph.
pub(super) fn idle<'a>(view: &PairView<'a>) -> Found<'a> {
    let pairs = view.graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear");
    pairs
        .filter_map(|pair| {
            let stored = pair.input(0).filter(|stored| !view.is_constant(stored))?;
            // Another DequantizeLinear of the same integers may have other readers.
            if view.readers(stored).len() > 1 {
                return None;
            }
            let value = pair.outputs.first()?;
            let readers = view.readers(value);
            let what = match (&readers[..], view.graph.is_output(value)) {
                ([], true) => "its value is an output of the graph".to_owned(),
                ([first, ..], false)
                    if readers.iter().all(|node| FLOAT.contains(&node.op_type.as_str())) =>
                {
                    format!("\"{}\" ({}) computes in float", first.label(), first.op_type)
                }
                _ => return None,
            };
            Some((pair, what))
        })
        .collect()
}

/// Operators that only give the elements other extents.
const SHAPES: [&str; 4] = ["Flatten", "Reshape", "Squeeze", "Unsqueeze"];

/// Poolings that read floats, although integer layers alone are before them, and whose means are quantized.
pub(super) fn pools<'a>(view: &PairView<'a>) -> Found<'a> {
    let pools = view.graph.nodes.iter();
    // TensorRT-RTX computes an AveragePool in float whatever pairs there are.
    let local = view.target != Some(Target::TensorrtRtx);
    pools
        .filter(|node| match node.op_type.as_str() {
            "AveragePool" => local,
            operator => operator == "GlobalAveragePool",
        })
        .filter_map(|pool| {
            let input = pool.input(0).filter(|name| view.dequantize(name).is_none())?;
            let layers = before(view, input);
            let first =
                layers.first().filter(|_| layers.iter().all(|node| view.is_integer(node)))?;
            let quantize = quantized_after(view, pool)?;
            let what = format!(
                "is float between \"{}\", which is int8, and \"{}\"",
                first.label(),
                quantize.label()
            );
            Some((pool, what))
        })
        .collect()
}

/// The QuantizeLinear behind a node, if nothing but other extents is in between.
fn quantized_after<'a>(view: &PairView<'a>, node: &'a Node) -> Option<&'a Node> {
    let mut node = node;
    let mut seen = HashSet::new();
    loop {
        let output = node.outputs.first().filter(|output| seen.insert(output.as_str()))?;
        let readers = view.readers(output);
        if let Some(quantize) = readers.iter().find(|node| node.op_type == "QuantizeLinear") {
            return Some(quantize);
        }
        node = match readers[..] {
            [only] if SHAPES.contains(&only.op_type.as_str()) => only,
            _ => return None,
        };
    }
}
