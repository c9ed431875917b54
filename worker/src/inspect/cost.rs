//! How much a model computes.

use serde::Serialize;

use crate::graph::{Model, Node};
use crate::onnx;
use crate::ops::Shapes;
use crate::shapes::Extent;

/// The multiplications of convolutions and products of matrices, as tables of networks count them; what works element by
/// element is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Multiply-adds (MACs) of one run: a number, or a polynomial of the free dimensions, such as `1814073344 batch`.
    pub multiply_adds: String,
    /// Floating-point operations: two a multiply-add.
    pub flops: String,
    /// Layers that are not counted, because a shape is not known, or how often they run.
    pub unknown: Vec<String>,
    /// The sum.
    #[serde(skip)]
    pub(super) sum: Extent,
}

impl Cost {
    /// That of a model whose values have these shapes.
    pub fn of(model: &Model, shapes: &Shapes) -> Self {
        let (mut sum, mut unknown) = (Extent::from(0), Vec::new());
        for node in model.graph.nodes.iter().filter(|node| counts(node)) {
            match multiply_adds(node, shapes).and_then(|own| sum.plus(&own)) {
                Some(more) => sum = more,
                None => unknown.push(node.label().to_owned()),
            }
        }
        let flops = sum.times(&2.into()).unwrap_or_else(|| sum.clone());
        Self { multiply_adds: sum.to_string(), flops: flops.to_string(), unknown, sum }
    }

    /// The share of each node of a model, 0…1; 0 of those that are not counted, or whose shapes are not known.
    pub fn shares(model: &Model) -> Vec<f64> {
        let shapes = Shapes::declared(model);
        let own = |node: &Node| {
            let made = counts(node).then(|| multiply_adds(node, &shapes)).flatten()?;
            made.number().or_else(|| Some(made.single_term()?.0))
        };
        let own: Vec<f64> =
            model.graph.nodes.iter().map(|node| own(node).unwrap_or(0) as f64).collect();
        let sum: f64 = own.iter().sum();
        own.into_iter().map(|own| if sum > 0.0 { own / sum } else { 0.0 }).collect()
    }

    /// `1.81 G multiply-adds (3.63 GFLOPs) × batch`.
    pub fn text(&self) -> String {
        let amount = |macs: i64| {
            let macs = macs as f64;
            let (scale, unit) = if macs >= 1e9 { (1e9, "G") } else { (1e6, "M") };
            let (macs, flops) = (macs / scale, 2.0 * macs / scale);
            format!("{macs:.2} {unit} multiply-adds ({flops:.2} {unit}FLOPs)")
        };
        let text = match (self.sum.number(), self.sum.single_term()) {
            (Some(number), _) => amount(number),
            (None, Some((factor, atoms))) => format!("{} × {atoms}", amount(factor)),
            (None, None) => format!("{} multiply-adds", self.sum),
        };
        match self.unknown.len() {
            0 => text,
            some => format!("{text}, without {some} layers of which shapes or count are not known"),
        }
    }
}

/// Operators of the standard that are counted.
const STANDARD: [&str; 12] = [
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Einsum",
    "GRU",
    "Gemm",
    "LSTM",
    "MatMul",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
];

/// Operators of ONNX Runtime's own domain that are counted, where they say enough: the others count as layers that are not known.
const MICROSOFT: [&str; 16] = [
    "Attention",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "GroupQueryAttention",
    "MatMulBnb4",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
];

fn counts(node: &Node) -> bool {
    let op = node.op_type.as_str();
    match node.domain.as_str() {
        // Graphs within a node run as often as its data say.
        "" => STANDARD.contains(&op) || onnx::within(node).iter().any(counts),
        "com.microsoft" => MICROSOFT.contains(&op),
        _ => false,
    }
}

fn product(extents: &[Extent]) -> Option<Extent> {
    extents.iter().try_fold(Extent::from(1), |product, extent| product.times(extent))
}

fn multiply_adds(node: &Node, shapes: &Shapes) -> Option<Extent> {
    let of = |index: usize| shapes.shape(node.input(index)?);
    let output = || shapes.shape(node.outputs.first()?);
    let made = match (node.domain.as_str(), node.op_type.as_str()) {
        // Each output element is a window of the weight.
        ("", "Conv" | "ConvInteger") => product(output()?)?.times(&product(&of(1)?[1..])?)?,
        (_, "QLinearConv") => product(output()?)?.times(&product(&of(3)?[1..])?)?,
        // Each input element meets the weights of its channel.
        ("", "ConvTranspose") => product(of(0)?)?.times(&product(&of(1)?[1..])?)?,
        ("", "Gemm") | ("com.microsoft", "QGemm") => {
            let inner = usize::from(node.int("transA", 0).ok()? == 0);
            product(output()?)?.times(of(0)?.get(inner)?)?
        }
        ("", "Einsum") => einsum(node, shapes)?,
        // `[steps, batch, input]`, or batch first; each step of each sequence meets all weights.
        ("", "LSTM" | "GRU" | "RNN") => {
            let weights = product(of(1)?)?.plus(&product(of(2)?)?)?;
            product(of(0)?.get(..2)?)?.times(&weights)?
        }
        ("", "MatMul" | "MatMulInteger") | (_, "QLinearMatMul") => {
            product(output()?)?.times(of(0)?.last()?)?
        }
        // Its weight is packed; each input element meets a row of it.
        ("com.microsoft", "MatMulNBits" | "MatMulBnb4") => {
            product(of(0)?)?.times(&node.int("N", 0).ok().filter(|count| *count > 0)?.into())?
        }
        // Each input element meets a row of a weight `[inner, outer]`.
        ("com.microsoft", "DynamicQuantizeMatMul" | "MatMulInteger16" | "MatMulIntegerToFloat") => {
            let weight = of(1).filter(|weight| weight.len() == 2)?;
            product(of(0)?)?.times(weight.last()?)?
        }
        _ => return None,
    };
    made.is_of_inputs().then_some(made)
}

/// The product of the extents of all labels.
fn einsum(node: &Node, shapes: &Shapes) -> Option<Extent> {
    let equation: String = node.text("equation", "").ok()?.replace(' ', "");
    let (inputs, _) = equation.split_once("->")?;
    let mut seen: Vec<char> = Vec::new();
    let mut made = Extent::from(1);
    for (index, labels) in inputs.split(',').enumerate() {
        let shape = shapes.shape(node.input(index)?)?;
        for (label, extent) in labels.chars().zip(shape) {
            if !seen.contains(&label) {
                seen.push(label);
                made = made.times(extent)?;
            }
        }
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use qpipe::stages::model_source::{Arch, ZooModel};

    use super::*;
    use crate::graph::{Dim, Graph, TensorData, ValueInfo};
    use crate::zoo;

    /// As torchvision's tables count them, GFLOPS there being multiply-adds: ResNet-18 1.814, MobileNetV2 0.301.
    #[test]
    fn networks_cost_what_tables_say() {
        for (arch, expected) in [(Arch::Resnet18, 1.814e9), (Arch::Mobilenetv2, 0.3008e9)] {
            let config = ZooModel {
                arch,
                in_channels: 3,
                classes: 1000,
                image_size: 224,
                blocks: None,
                channels: None,
                stem: None,
                weights: None,
            };
            let model = zoo::build(&config, None, 0).unwrap();
            let cost = Cost::of(&model, &Shapes::declared(&model));
            let (factor, batch) = cost.sum.single_term().unwrap();
            assert_eq!(batch, "batch");
            assert!((factor as f64 / expected - 1.0).abs() < 1e-3, "{arch:?}: {factor}");
            let shares = Cost::shares(&model);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let products = model.graph.nodes.iter().filter(|node| counts(node)).count();
            assert_eq!(shares.iter().filter(|share| **share > 0.0).count(), products);
            assert!(cost.unknown.is_empty() && cost.text().ends_with("× batch"), "{}", cost.text());
        }
    }

    #[test]
    fn every_kind_of_product_is_counted_and_what_is_not_known_is_named() {
        let cost = |node: Node, weight: &[i64]| {
            let mut graph = Graph {
                inputs: vec![ValueInfo::f32("x", [1, 4, 6].map(Dim::Fixed).to_vec())],
                nodes: vec![node],
                ..Graph::default()
            };
            let count = weight.iter().product::<i64>() as usize;
            graph.initializers.insert("w".to_owned(), TensorData::f32(weight, &vec![0.0; count]));
            let model = Model::new(graph, 17);
            Cost::of(&model, &Shapes::declared(&model))
        };
        let node = |op: &str| Node::new("n", op, &["x", "w"], &["y"]);
        // [1, 4, 6] by [6, 5].
        assert_eq!(cost(node("MatMul"), &[6, 5]).multiply_adds, "120");
        // 2 channels of 4 places, windows of 4 × 3.
        assert_eq!(cost(node("Conv"), &[2, 4, 3]).multiply_adds, "96");
        // 24 elements meet 2 × 3 weights.
        assert_eq!(cost(node("ConvTranspose"), &[4, 2, 3]).multiply_adds, "144");
        let equation = crate::graph::Attribute::String(b"bij, jk -> bik".to_vec());
        assert_eq!(cost(node("Einsum").with("equation", equation), &[6, 5]).flops, "240");
        assert_eq!(cost(node("Relu"), &[1]).multiply_adds, "0");
        assert_eq!(cost(Node::new("n", "MatMul", &["x", "z"], &["y"]), &[1]).unknown, ["n"]);
        // 1 × 4 steps meet both weights of [1, 6, 6].
        let lstm = Node::new("n", "LSTM", &["x", "w", "w"], &["y"]);
        assert_eq!(cost(lstm, &[1, 6, 6]).multiply_adds, "288");
        // Operators of ONNX Runtime's own: a packed weight of 5 columns, and one that says too little.
        let own = |op: &str| Node { domain: "com.microsoft".to_owned(), ..node(op) };
        let packed = own("MatMulNBits").with("N", crate::graph::Attribute::Int(5));
        assert_eq!(cost(packed, &[1]).multiply_adds, "120");
        assert_eq!(cost(own("QAttention"), &[1]).unknown, ["n"]);
    }
}
