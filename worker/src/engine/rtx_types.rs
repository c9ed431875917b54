//! What a model asks of a GPU that TensorRT-RTX cannot do there.
//!
//! Types: <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html> and
//! <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-quantized-types.html>. That convolutions are float on Turing is
//! what its builder, 1.7.1, makes of them (docs/tensorrt-rtx.md).

use crate::graph::{Attribute, DType, Graph, Node};
use crate::quant::lint::PairView;

/// Something that not every GPU can do.
struct Demand {
    /// What it is.
    what: &'static str,
    /// Least compute capability.
    least: u32,
    /// What becomes of it below.
    below: &'static str,
    /// The nodes that ask for it.
    nodes: for<'a> fn(&PairView<'a>) -> Vec<&'a Node>,
}

const DEMANDS: &[Demand] = &[
    Demand {
        what: "convolutions with INT8 pairs",
        least: 80,
        below: "they are computed in float, and only the rounding of the pairs is left",
        nodes: convolutions,
    },
    Demand {
        what: "matrix products whose weights alone are INT8 or INT4",
        least: 80,
        below: "it has no such kernel",
        nodes: weights_alone,
    },
    Demand {
        what: "bfloat16 values",
        least: 80,
        below: "it has no such kernel",
        nodes: |view| view.graph.nodes.iter().filter(|node| is_bfloat16(view, node)).collect(),
    },
    Demand {
        what: "float8 pairs",
        least: 89,
        below: "it has no such kernel",
        nodes: |view| pairs(view, &[DType::F8E4M3FN, DType::F8E5M2]),
    },
    Demand {
        what: "float4 pairs",
        least: 100,
        below: "it has no such kernel",
        nodes: |view| pairs(view, &[DType::F4E2M1]),
    },
];

/// A sentence for each demand of the model that a GPU of this compute capability does not meet.
pub fn unmet(graph: &Graph, capability: u32) -> Vec<String> {
    let view = PairView::of(graph, None);
    let told = DEMANDS.iter().filter(|demand| capability < demand.least).filter_map(|demand| {
        let nodes = (demand.nodes)(&view);
        let first = nodes.first()?;
        let more = match nodes.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        Some(format!(
            "the model has {} (node \"{}\"{more}), for which TensorRT-RTX needs compute capability {}: on {capability} {}",
            demand.what,
            first.label(),
            demand.least,
            demand.below
        ))
    });
    told.collect()
}

fn convolutions<'a>(view: &PairView<'a>) -> Vec<&'a Node> {
    let is = |node: &&Node| node.op_type == "Conv" && view.is_integer(node);
    let is_int8 = |node: &&Node| weight_type(view, node) == Some(DType::I8);
    view.layers().filter(is).filter(is_int8).collect()
}

fn weights_alone<'a>(view: &PairView<'a>) -> Vec<&'a Node> {
    let products = view.layers().filter(|node| ["MatMul", "Gemm"].contains(&node.op_type.as_str()));
    let is = |node: &&Node| {
        view.quantized(node) == (false, true)
            && matches!(weight_type(view, node), Some(DType::I8 | DType::I4))
    };
    products.filter(is).collect()
}

/// Type of the pair on a layer's weight.
fn weight_type(view: &PairView, layer: &Node) -> Option<DType> {
    pair_type(view, view.dequantize(layer.input(1)?)?)
}

/// The type that a DequantizeLinear reads: that of its zero point, else of stored values, else what its QuantizeLinear says.
fn pair_type(view: &PairView, dequantize: &Node) -> Option<DType> {
    let constant = |index: usize| {
        let data = view.constant(dequantize.input(index).filter(|name| !name.is_empty())?)?;
        Some(data.dtype.stored())
    };
    constant(2).or_else(|| constant(0)).or_else(|| {
        let quantize = view.producer(dequantize.input(0)?)?;
        DType::from_onnx(i32::try_from(quantize.int("output_dtype", 0).ok()?).ok()?)
    })
}

/// Layers and other nodes that read a pair of one of these types.
fn pairs<'a>(view: &PairView<'a>, types: &[DType]) -> Vec<&'a Node> {
    let reads = |name: &String| {
        let found = view.dequantize(name).and_then(|pair| pair_type(view, pair));
        found.is_some_and(|found| types.contains(&found))
    };
    view.graph.nodes.iter().filter(|node| node.inputs.iter().any(reads)).collect()
}

fn is_bfloat16(view: &PairView, node: &Node) -> bool {
    let to = matches!(node.attributes.get("to"), Some(Attribute::Int(to)) if *to == i64::from(DType::BF16.onnx()));
    let reads = |name: &String| view.constant(name).is_some_and(|data| data.dtype == DType::BF16);
    node.op_type == "Cast" && to || node.inputs.iter().any(reads)
}

#[cfg(test)]
mod tests {
    use qpipe::stages::build_engine::COMPUTE_CAPABILITIES;

    use super::*;
    use crate::graph::{Dim, TensorData, ValueInfo};

    /// A layer of one input and one weight, behind pairs of these types where there are some.
    fn model(op: &str, input: Option<DType>, weight: Option<DType>) -> Graph {
        let mut graph = Graph {
            inputs: vec![ValueInfo::f32("x", [1, 4, 4, 4].map(Dim::Fixed).to_vec())],
            outputs: vec![ValueInfo::f32("y", Vec::new())],
            ..Graph::default()
        };
        graph.initializers.insert("w".to_owned(), TensorData::f32(&[4, 4, 1, 1], &[0.5; 16]));
        graph.initializers.insert("scale".to_owned(), TensorData::f32(&[], &[0.1]));
        let read = [("x", input), ("w", weight)].map(|(name, dtype)| {
            let Some(dtype) = dtype else { return name.to_owned() };
            let (q, dq) = (format!("{name}_q"), format!("{name}_dq"));
            let number = Attribute::Int(i64::from(dtype.onnx()));
            let quantize = Node::new(&q, "QuantizeLinear", &[name, "scale"], &[&q]);
            graph.nodes.push(quantize.with("output_dtype", number));
            graph.nodes.push(Node::new(&dq, "DequantizeLinear", &[&q, "scale"], &[&dq]));
            dq
        });
        graph.nodes.push(Node::new("layer", op, &[&read[0], &read[1]], &["y"]));
        graph
    }

    #[test]
    fn what_a_gpu_cannot_do_is_told_and_nothing_else() {
        let (int8, int4) = (Some(DType::I8), Some(DType::I4));
        let (float8, float4) = (Some(DType::F8E4M3FN), Some(DType::F4E2M1));
        for (op, input, weight, what, least) in [
            ("Conv", int8, int8, "convolutions with INT8 pairs", 80),
            ("MatMul", None, int8, "matrix products whose weights alone", 80),
            ("Gemm", None, int4, "matrix products whose weights alone", 80),
            ("MatMul", float8, float8, "float8 pairs", 89),
            ("MatMul", float4, float4, "float4 pairs", 100),
        ] {
            let graph = model(op, input, weight);
            for capability in COMPUTE_CAPABILITIES {
                let told = unmet(&graph, capability);
                assert_eq!(told.len(), usize::from(capability < least), "{op} {told:?}");
                let named = |told: &String| {
                    told.contains(what)
                        && told.contains("node \"layer\"")
                        && told.contains(&format!(
                            "needs compute capability {least}: on {capability} "
                        ))
                };
                assert!(told.iter().all(named), "{told:?}");
            }
        }
        // Products of integers are INT8 on Turing too, and floats are floats.
        for graph in [model("MatMul", int8, int8), model("Conv", None, None)] {
            assert!(unmet(&graph, 75).is_empty(), "{:?}", unmet(&graph, 75));
        }
        let mut cast = model("Conv", None, None);
        let number = Attribute::Int(i64::from(DType::BF16.onnx()));
        cast.nodes.push(Node::new("half", "Cast", &["y"], &["z"]).with("to", number));
        assert!(unmet(&cast, 75)[0].contains("bfloat16") && unmet(&cast, 86).is_empty());
    }
}
