//! Pairs by themselves.

use qpipe::stages::insert_qdq::Target;

use super::table::Found;
use super::view::PairView;
use crate::graph::{DType, Node};

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

/// Scales that are 0, infinite or NaN, and negative ones, which TensorRT's parser refuses; onnxruntime's quantizer of blocks writes such.
pub(super) fn scale<'a>(view: &PairView<'a>) -> Found<'a> {
    let negative = view.target == Some(Target::Onnxruntime);
    let is_sound = |scale: &f32| scale.is_finite() && (*scale > 0.0 || negative && *scale < 0.0);
    let pairs = view.graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear");
    pairs
        .filter_map(|pair| {
            let scales = view.constant(pair.input(1)?)?.to_f32().ok()?;
            let bad = scales.into_iter().find(|scale| !is_sound(scale))?;
            Some((pair, format!("its scale is {bad}")))
        })
        .collect()
}

/// Types that TensorRT quantizes to.
const TAKEN: [DType; 4] = [DType::I8, DType::I4, DType::F8E4M3FN, DType::F4E2M1];

/// Zero points other than 0, and types that TensorRT does not take.
pub(super) fn zero_point<'a>(view: &PairView<'a>) -> Found<'a> {
    let nodes = view.graph.nodes.iter();
    let quantizes = nodes
        .filter(|node| ["QuantizeLinear", "DequantizeLinear"].contains(&node.op_type.as_str()));
    quantizes
        .filter_map(|node| {
            let Some(zero) = node.input(2).and_then(|name| view.constant(name)) else {
                let dtype = untyped(view, node)?;
                let refused = !TAKEN.contains(&dtype);
                return refused
                    .then(|| (node, format!("has no zero point: its type is {}", dtype.name())));
            };
            // Of float 8 there are no whole numbers to look at.
            let other =
                zero.whole_numbers().and_then(|all| all.into_iter().find(|&zero| zero != 0));
            match (zero.dtype, other) {
                // Biases, which ONNX Runtime wants.
                (DType::I32, _) => {
                    Some((node, "is an int32 bias, which TensorRT refuses".to_owned()))
                }
                (dtype, Some(zero)) if !TAKEN.contains(&dtype) => {
                    Some((node, format!("is {}, with zero point {zero}", dtype.name())))
                }
                (_, Some(zero)) => Some((node, format!("has zero point {zero}"))),
                (dtype, None) => {
                    (!TAKEN.contains(&dtype)).then(|| (node, format!("is {}", dtype.name())))
                }
            }
        })
        .collect()
}

/// The type of the integers of a Q or DQ, where the graph says it.
pub(super) fn integers(view: &PairView, node: &Node) -> Option<DType> {
    if let Some(zero) = node.input(2).and_then(|name| view.constant(name)) {
        return Some(zero.dtype);
    }
    untyped(view, node).or_else(|| {
        let made = view.producer(node.input(0)?)?;
        (node.op_type == "DequantizeLinear" && made.op_type == "QuantizeLinear")
            .then(|| integers(view, made))?
    })
}

/// The type of the integers of a node without a zero point, where the graph says it.
fn untyped(view: &PairView, node: &Node) -> Option<DType> {
    if node.op_type == "QuantizeLinear" {
        let named = node.int("output_dtype", 0).ok().filter(|number| *number != 0);
        // Without any it gives uint8.
        return named.map_or(Some(DType::U8), |number| DType::from_onnx(number.try_into().ok()?));
    }
    // That of the constant, or of the node that made the integers, which is told itself.
    view.constant(node.input(0)?).map(|stored| stored.dtype)
}
