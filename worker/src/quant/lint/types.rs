//! Types of pairs that leave what reads them in float.

use super::moved::{carried, is_half, origin};
use super::pairs::integers;
use super::table::Found;
use super::view::PairView;
use crate::graph::{DType, Node};
use crate::ops::WEIGHTED;

/// Operators of which ONNX Runtime 1.32 drops the pairs whatever their type, or that are pairs themselves.
const UNTYPED: [&str; 17] = [
    "Cast",
    "Clip",
    "DequantizeLinear",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "QuantizeLinear",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

fn computes(node: &&Node) -> bool {
    !UNTYPED.contains(&node.op_type.as_str())
}

/// What computes with integers of 16 bits, for which ONNX Runtime has no kernels.
pub(super) fn wide<'a>(view: &PairView<'a>) -> Found<'a> {
    let nodes = view.graph.nodes.iter().filter(computes);
    nodes.filter_map(|node| Some((node, wide_pair(view, node)?))).collect()
}

/// The pair of 16 bits that a node reads, or that is behind what it makes of other pairs.
fn wide_pair(view: &PairView, node: &Node) -> Option<String> {
    let wide =
        |pair: &Node| integers(view, pair).filter(|dtype| matches!(dtype, DType::I16 | DType::U16));
    let read = |name: &String| {
        let dequantize = view.dequantize(carried(view, name))?;
        Some((dequantize, wide(dequantize)))
    };
    let reads: Vec<(&Node, Option<DType>)> = node.inputs.iter().filter_map(read).collect();
    if let Some((pair, dtype)) = reads.iter().find_map(|(pair, dtype)| Some((pair, (*dtype)?))) {
        return Some(format!("reads {} from \"{}\"", dtype.name(), pair.label()));
    }
    let mut written = node.outputs.iter().flat_map(|output| view.readers(output));
    let quantizes = |pair: &Node| wide(pair).filter(|_| pair.op_type == "QuantizeLinear");
    let (pair, dtype) = written.find_map(|pair| Some((pair, quantizes(pair)?)))?;
    (!reads.is_empty()).then(|| {
        format!("\"{}\" makes {} of what it gives, and it reads 8 bits", pair.label(), dtype.name())
    })
}

/// What reads pairs of activations as float16 (those of weights alone are no integer kernels' anyway): by their scales, or by a Cast between them and it.
pub(super) fn half<'a>(view: &PairView<'a>) -> Found<'a> {
    let nodes = view.graph.nodes.iter().filter(computes);
    nodes
        .filter_map(|node| {
            node.inputs.iter().find_map(|name| {
                let name = carried(view, name);
                let cast = view.producer(name).filter(|node| node.op_type == "Cast");
                let pair = match cast {
                    Some(cast) => view.dequantize(carried(view, cast.input(0)?)),
                    None => view.dequantize(name).filter(|_| is_half(view, name)),
                }?;
                let weight = view.behind(&pair.outputs[0]).is_some_and(|it| view.is_constant(it));
                if weight {
                    return None;
                }
                let how = cast.map_or_else(
                    || "whose scale is float16".to_owned(),
                    |cast| format!("behind the Cast \"{}\"", cast.label()),
                );
                Some((node, format!("reads \"{}\", {how}", pair.label())))
            })
        })
        .collect()
}

/// Layers whose pairs have a Cast between them and the layer.
pub(super) fn cast<'a>(view: &PairView<'a>) -> Found<'a> {
    let layers = view.graph.nodes.iter().filter(|node| WEIGHTED.contains(&node.op_type.as_str()));
    let mut found: Found = Vec::new();
    for name in layers.flat_map(|layer| layer.inputs.iter().take(2)) {
        let moved = origin(view, name);
        let casts = moved.movers().filter(|node| node.op_type == "Cast");
        let Some(pair) = view.dequantize(moved.value) else { continue };
        for cast in casts {
            if found.iter().all(|(known, _)| !std::ptr::eq(*known, cast)) {
                found.push((cast, format!("stands between \"{}\" and its layer", pair.label())));
            }
        }
    }
    found
}
