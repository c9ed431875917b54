//! Another version of the standard's operator set.

use crate::graph::{Attribute, DType, Graph, Model, Node};
use crate::{Error, Result, ops};

/// Where an operator came to mean something else: its name, the opset, and the attribute without which it did not matter.
/// Changes that only added element types are left out. <https://onnx.ai/onnx/operators/>
const CHANGES: &[(&str, i64, Option<&str>)] = &[
    ("Add", 7, None),
    ("And", 7, None),
    ("ArgMax", 12, Some("select_last_index")),
    ("ArgMin", 12, Some("select_last_index")),
    ("AveragePool", 7, Some("count_include_pad")),
    ("AveragePool", 10, Some("ceil_mode")),
    ("AveragePool", 19, Some("dilations")),
    ("BatchNormalization", 7, None),
    ("BatchNormalization", 9, Some("spatial")),
    ("BatchNormalization", 14, Some("training_mode")),
    ("Cast", 6, None),
    ("Cast", 19, Some("saturate")),
    ("CastLike", 19, Some("saturate")),
    ("Clip", 11, None),
    ("Concat", 4, None),
    ("DepthToSpace", 11, Some("mode")),
    ("DequantizeLinear", 13, Some("axis")),
    ("DequantizeLinear", 21, Some("block_size")),
    ("Div", 7, None),
    ("Dropout", 7, Some("is_test")),
    ("Dropout", 12, None),
    ("Equal", 7, None),
    ("Gemm", 7, None),
    ("Greater", 7, None),
    ("GridSample", 20, None),
    ("GroupNormalization", 21, None),
    ("Less", 7, None),
    ("LogSoftmax", 13, None),
    ("LpPool", 18, Some("ceil_mode")),
    ("LpPool", 18, Some("dilations")),
    ("Max", 8, None),
    ("MaxPool", 8, Some("storage_order")),
    ("MaxPool", 10, Some("ceil_mode")),
    ("MaxPool", 10, Some("dilations")),
    ("Mean", 8, None),
    ("Min", 8, None),
    ("Mul", 7, None),
    ("Or", 7, None),
    ("PRelu", 7, None),
    ("Pad", 11, None),
    ("Pad", 18, None),
    ("Pow", 7, None),
    ("QuantizeLinear", 13, Some("axis")),
    ("QuantizeLinear", 21, Some("block_size")),
    ("QuantizeLinear", 21, Some("output_dtype")),
    ("ReduceL1", 18, Some("axes")),
    ("ReduceL2", 18, Some("axes")),
    ("ReduceLogSum", 18, Some("axes")),
    ("ReduceLogSumExp", 18, Some("axes")),
    ("ReduceMax", 18, Some("axes")),
    ("ReduceMean", 18, Some("axes")),
    ("ReduceMin", 18, Some("axes")),
    ("ReduceProd", 18, Some("axes")),
    ("ReduceSum", 13, Some("axes")),
    ("ReduceSumSquare", 18, Some("axes")),
    ("Reshape", 5, None),
    ("Reshape", 14, Some("allowzero")),
    ("Resize", 11, None),
    ("Resize", 18, Some("antialias")),
    ("Resize", 18, Some("axes")),
    ("Resize", 18, Some("keep_aspect_ratio_policy")),
    ("ScatterElements", 16, Some("reduction")),
    ("ScatterND", 16, Some("reduction")),
    ("Selu", 6, None),
    ("Shape", 15, Some("end")),
    ("Shape", 15, Some("start")),
    ("Slice", 10, None),
    ("Softmax", 13, None),
    ("Split", 2, None),
    ("Split", 13, Some("split")),
    ("Split", 18, None),
    ("Squeeze", 13, None),
    ("Sub", 7, None),
    ("Sum", 8, None),
    ("Tile", 6, None),
    ("TopK", 10, None),
    ("Unsqueeze", 13, None),
    ("Upsample", 9, None),
    ("Xor", 7, None),
];

/// Names another opset where every operator of the model means the same in both.
///
/// # Errors
/// An operator that changed in between, or that nothing is known of: nothing is translated.
pub fn set_opset(model: &mut Model, opset: i64) -> Result<()> {
    let old = model.opset();
    if old == opset {
        return Ok(());
    }
    for node in model.graph.nodes.iter().filter(|node| node.domain.is_empty()) {
        // Its new input says which axes are padded; without it all are.
        let only_new = node.op_type == "Pad" && (11..18).contains(&old) && opset >= 18;
        if !only_new && !same(node, old, opset) {
            return Err(Error::user(format!(
                "{} does not mean the same in opset {opset} as in the model's own, {old}",
                node.place()
            ))
            .help(format!("write opset = {old}")));
        }
    }
    for set in &mut model.opsets {
        if set.domain.is_empty() || set.domain == "ai.onnx" {
            set.version = opset;
        }
    }
    // Which opsets a version of the file format may hold: IR 8 up to opset 18, 9 up to 20, 10 from 21.
    let least = match opset {
        ..=18 => 8,
        19..=20 => 9,
        _ => 10,
    };
    model.ir_version = model.ir_version.max(least);
    Ok(())
}

/// The opset from which quantization knows blocks, and integers of 16 bits.
pub const OPSET_OF_BLOCKS: i64 = 21;

/// Whether a QuantizeLinear or DequantizeLinear is to or from integers of 16 bits, by its zero point or what it reads.
pub fn is_of_16_bits(graph: &Graph, node: &Node) -> bool {
    let constants =
        [0, 2].into_iter().filter_map(|index| graph.initializers.get(node.input(index)?));
    constants.map(|data| data.dtype).any(|dtype| matches!(dtype, DType::I16 | DType::U16))
}

/// The opset from which quantization knows a type; 1 where any does.
pub fn opset_of(dtype: DType) -> i64 {
    match dtype {
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 19,
        DType::I4 | DType::U4 => 21,
        DType::F4E2M1 => 23,
        DType::I2 | DType::U2 => 25,
        _ => 1,
    }
}

/// The least opset whose quantization knows the graph's stored types and blocks; 1 where any does.
///
/// # Errors
/// A `block_size` that is no number.
pub fn least_opset(graph: &Graph) -> Result<i64> {
    let mut least = 1;
    for data in graph.initializers.values() {
        least = least.max(opset_of(data.dtype));
    }
    for node in graph.nodes.iter().filter(|node| node.domain.is_empty()) {
        let quantizes = ["QuantizeLinear", "DequantizeLinear"].contains(&node.op_type.as_str());
        if !quantizes {
            continue;
        }
        let blocks = node.int("block_size", 0).map_err(|error| error.at(node.place()))? != 0;
        if blocks || is_of_16_bits(graph, node) {
            least = least.max(OPSET_OF_BLOCKS);
        }
    }
    Ok(least)
}

fn same(node: &Node, old: i64, new: i64) -> bool {
    let (low, high) = (old.min(new), old.max(new));
    if node.op_type == "Constant" {
        return true;
    }
    let exists = ops::first_version(&node.op_type).is_some_and(|first| first <= low);
    let set = |name: &str| match node.attributes.get(name) {
        None | Some(Attribute::Int(0)) => false,
        Some(Attribute::Ints(values)) if name == "dilations" => {
            values.iter().any(|&value| value != 1)
        }
        Some(_) => true,
    };
    // Until opset 13 it trained where it had more than one output.
    if node.op_type == "BatchNormalization" && node.outputs.len() > 1 && low < 14 && high >= 14 {
        return false;
    }
    // Axes of reductions are an input from that opset on, lengths of a Split were one before `num_outputs` came.
    let input = node.input(1).is_some();
    let mut changes = CHANGES.iter().filter(|&&(name, at, attribute)| {
        let matters = match (name, at) {
            ("Split", 18) => low < 13 || !(input || old < at && set("num_outputs")),
            (name, at) if name.starts_with("Reduce") && old >= at => input,
            _ => attribute.is_none_or(set),
        };
        name == node.op_type && low < at && at <= high && matters
    });
    exists && changes.next().is_none()
}
