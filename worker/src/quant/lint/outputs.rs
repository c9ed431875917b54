//! Convolutions whose integers would have to leave them as floats.

use qpipe::stages::insert_qdq::Target;

use super::moved::{carried, is_half, is_passed};
use super::pairs::integers;
use super::table::Found;
use super::view::PairView;
use crate::graph::{DType, Node};
use crate::ops::quantization::range;

/// Integer convolutions whose output is not read by one QuantizeLinear alone, behind the activation that is part of their kernel.
pub(super) fn unquantized<'a>(view: &PairView<'a>) -> Found<'a> {
    // Asked about all runtimes: those of TensorRT write floats.
    if view.target != Some(Target::Onnxruntime) {
        return Vec::new();
    }
    // Of other types it has no kernel at all, whatever stands behind.
    let is_byte = |layer: &&Node| {
        let pair = layer.input(0).and_then(|input| view.dequantize(carried(view, input)));
        let dtype = pair.and_then(|pair| integers(view, pair));
        let half = pair.is_some_and(|pair| is_half(view, &pair.outputs[0]));
        !half && dtype.is_none_or(|dtype| matches!(dtype, DType::I8 | DType::U8))
    };
    let convs = view.layers().filter(|layer| layer.op_type == "Conv" && view.is_integer(layer));
    let convs = convs.filter(is_byte);
    convs.filter_map(|conv| Some((conv, float_reader(view, conv)?))).collect()
}

/// Operators in front of an activation behind which ONNX Runtime 1.32 still finds the convolution; behind others that pairs move over it does not.
const TRANSPARENT: [&str; 4] = ["Cast", "Dropout", "Identity", "Transpose"];

/// What keeps a convolution from writing integers: all of it as seen of ONNX Runtime 1.32.
fn float_reader(view: &PairView, conv: &Node) -> Option<String> {
    let mut node = conv;
    let (mut activations, mut mover): (Vec<&Node>, Option<&Node>) = (Vec::new(), None);
    // A stranger's graph may have a cycle.
    for _ in &view.graph.nodes {
        let value = node.outputs.first()?;
        if view.graph.is_output(value) {
            return Some(format!("its output \"{value}\" is one of the graph's, in float"));
        }
        let mut readers = view.readers(value);
        // It may read it more than once.
        readers.dedup_by(|a, b| std::ptr::eq(*a, *b));
        let quantizes = |node: &&Node| node.op_type == "QuantizeLinear";
        let reader = match readers[..] {
            [] => return None,
            [reader] => reader,
            [first, ..] if readers.iter().all(quantizes) => {
                // Equal ones are made one; those with constants of their own are not, whatever their values.
                let alike = |other: &&Node| {
                    other.inputs == first.inputs && other.attributes == first.attributes
                };
                if !readers.iter().all(alike) {
                    let count = readers.len();
                    return Some(format!(
                        "{count} QuantizeLinear read its output, which share neither scale nor zero point"
                    ));
                }
                first
            }
            _ => {
                let other = readers.iter().find(|node| !quantizes(node))?;
                let count = readers.len();
                return Some(format!(
                    "{count} nodes read its output, \"{}\" ({}) in float",
                    other.label(),
                    other.op_type
                ));
            }
        };
        match reader.op_type.as_str() {
            "QuantizeLinear" => {
                let stays = |activation: &&Node| stays(view, activation, reader);
                return activations.iter().copied().find_map(|node| stays(&node));
            }
            "Relu" | "Clip" => match mover {
                Some(mover) => {
                    return Some(format!(
                        "\"{}\" ({}) stands between it and \"{}\" ({})",
                        mover.label(),
                        mover.op_type,
                        reader.label(),
                        reader.op_type
                    ));
                }
                None => activations.push(reader),
            },
            operator if is_passed(view, reader) => {
                let hides = !TRANSPARENT.contains(&operator);
                mover = mover.or(Some(reader).filter(|_| hides));
            }
            operator => {
                return Some(format!(
                    "\"{}\" ({operator}) reads its output in float",
                    reader.label()
                ));
            }
        }
        node = reader;
    }
    None
}

/// Why an activation stays in front of a QuantizeLinear: its integers reach values that the activation cuts off.
fn stays(view: &PairView, activation: &Node, quantize: &Node) -> Option<String> {
    let told = |why: String| {
        let (operator, name) = (&activation.op_type, activation.label());
        Some(format!("\"{name}\" ({operator}) behind it stays, and in float: {why}"))
    };
    let (scales, zeros) = view.parameters(quantize)?;
    let (&[scale], &[zero]) = (&scales[..], &zeros[..]) else { return None };
    let dtype = integers(view, quantize)?;
    let (least, most) = range(dtype)?;
    let value = |integer: i64| scale * (integer - zero) as f32;
    if activation.op_type == "Relu" {
        return (zero != least)
            .then(|| told(format!("its pair has zero point {zero}, {least} would be 0")))?;
    }
    let mut bounds =
        [(1, "min", f32::NEG_INFINITY), (2, "max", f32::INFINITY)].map(|(index, name, open)| {
            match activation.input(index) {
                Some(bound) => view.constant(bound)?.to_f32().ok()?.first().copied(),
                // Attributes before opset 11.
                None => activation.float(name, open).ok(),
            }
        });
    let (Some(low), Some(high)) = (bounds[0].take(), bounds[1].take()) else {
        return told("its bounds are no constants".to_owned());
    };
    let covers = low <= value(least) && high >= value(most);
    // Bounds that are rounded to the last integers are as good; what is no bound has no integer.
    let integer = |bound: f32| Some((bound / scale).round_ties_even()).filter(|it| it.abs() < 2e9);
    let rounds = || {
        let (low, high) = (integer(low.max(f32::MIN)), integer(high)?);
        let reaches = low.is_none_or(|low| low as i64 + zero <= least);
        Some(reaches && high as i64 + zero >= most)
    };
    if covers || rounds() == Some(true) {
        return None;
    }
    told(format!("its pair reaches {} to {}, beyond {low} to {high}", value(least), value(most)))
}
