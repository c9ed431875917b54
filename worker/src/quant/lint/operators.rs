//! Quantized operators that are no pairs, which only some runtimes read.

use qpipe::stages::insert_qdq::Target;

use super::table::Found;
use super::view::PairView;
use crate::graph::{Graph, Node};
use crate::quant::quantized::Form;
use crate::{onnx, passes};

/// Operators on integers that TensorRT's parsers have no importer for: `N` in
/// <https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md> (7.0 to 10.15), those of other domains not in it at all.
pub(super) fn integers<'a>(view: &PairView<'a>) -> Found<'a> {
    found(view.graph, |node| match Form::of(node)? {
        Form::IntegerOperators => Some("computes with integers itself"),
        Form::Dynamic => Some("is part of a dynamic quantization"),
        Form::Pairs | Form::PackedWeights => None,
    })
}

/// Packed weights. TensorRT-RTX has an importer for one operator of them.
pub(super) fn packed<'a>(view: &PairView<'a>) -> Found<'a> {
    let rtx = view.target == Some(Target::TensorrtRtx);
    found(view.graph, |node| {
        let packed = Form::of(node)? == Form::PackedWeights;
        let read = rtx && node.op_type == "MatMulNBits";
        (packed && !read).then_some("reads a packed weight")
    })
}

/// TensorRT's own operators: pairs that NVIDIA's tools write for types that older opsets lack, and plugins.
pub(super) fn tensorrts<'a>(view: &PairView<'a>) -> Found<'a> {
    found(view.written, |node| {
        let domain = node.domain.as_str();
        if passes::is_tensorrt_pair(node) {
            return Some("is one of TensorRT's own pairs");
        }
        (domain == "trt" || domain.starts_with("trt.")).then_some("is one of TensorRT's own")
    })
}

/// Nodes that are refused, and those that hold such a node in a graph of theirs.
fn found<'a>(graph: &'a Graph, refused: impl Fn(&Node) -> Option<&'static str>) -> Found<'a> {
    let nodes = graph.nodes.iter();
    nodes
        .filter_map(|node| {
            if let Some(about) = refused(node) {
                let domain = match node.domain.as_str() {
                    "" => String::new(),
                    domain => format!(", an operator of {domain}"),
                };
                return Some((node, format!("{about}{domain}")));
            }
            let within = onnx::within(node);
            let inner = within.iter().find(|inner| refused(inner).is_some())?;
            Some((node, format!("a graph within it has {}", inner.place())))
        })
        .collect()
}
