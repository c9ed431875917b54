//! What of a model is quantized already, and in which form: by its operators.
//!
//! Q/DQ pairs around float operators are what the stages write and runtimes share. Other tools, onnxruntime.quantization before all,
//! also write operators that compute with integers themselves.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::graph::{Graph, Node};
use crate::{onnx, passes};

/// A form of quantization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// `QuantizeLinear` and `DequantizeLinear` around float operators.
    Pairs,
    /// Operators that read and write integers; scales and zero points are inputs of theirs: `QuantFormat.QOperator`.
    IntegerOperators,
    /// Products of integers whose scales are found from the data of each run: `quantize_dynamic`.
    Dynamic,
    /// Weights of few bits, packed in blocks: `MatMulNBits`.
    PackedWeights,
}

/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

/// Operators by domain and name. Those of the standard are all that it has.
const OPERATORS: [(&str, &str, Form); 35] = [
    ("", "QuantizeLinear", Form::Pairs),
    ("", "DequantizeLinear", Form::Pairs),
    ("", "QLinearConv", Form::IntegerOperators),
    ("", "QLinearMatMul", Form::IntegerOperators),
    ("", "DynamicQuantizeLinear", Form::Dynamic),
    ("", "ConvInteger", Form::Dynamic),
    ("", "MatMulInteger", Form::Dynamic),
    // <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>; the pairs for types that the standard lacked.
    (MICROSOFT, "QuantizeLinear", Form::Pairs),
    (MICROSOFT, "DequantizeLinear", Form::Pairs),
    (MICROSOFT, "MulInteger", Form::IntegerOperators),
    (MICROSOFT, "QEmbedLayerNormalization", Form::IntegerOperators),
    (MICROSOFT, "QGemm", Form::IntegerOperators),
    (MICROSOFT, "QLinearAdd", Form::IntegerOperators),
    (MICROSOFT, "QLinearAveragePool", Form::IntegerOperators),
    (MICROSOFT, "QLinearConcat", Form::IntegerOperators),
    (MICROSOFT, "QLinearConv", Form::IntegerOperators),
    (MICROSOFT, "QLinearGlobalAveragePool", Form::IntegerOperators),
    (MICROSOFT, "QLinearLeakyRelu", Form::IntegerOperators),
    (MICROSOFT, "QLinearMul", Form::IntegerOperators),
    (MICROSOFT, "QLinearReduceMean", Form::IntegerOperators),
    (MICROSOFT, "QLinearSigmoid", Form::IntegerOperators),
    (MICROSOFT, "QLinearSoftmax", Form::IntegerOperators),
    (MICROSOFT, "QLinearWhere", Form::IntegerOperators),
    (MICROSOFT, "QuantizeWithOrder", Form::IntegerOperators),
    (MICROSOFT, "DequantizeWithOrder", Form::IntegerOperators),
    (MICROSOFT, "DynamicQuantizeLSTM", Form::Dynamic),
    (MICROSOFT, "DynamicQuantizeMatMul", Form::Dynamic),
    (MICROSOFT, "MatMulInteger16", Form::Dynamic),
    (MICROSOFT, "MatMulIntegerToFloat", Form::Dynamic),
    (MICROSOFT, "QAttention", Form::Dynamic),
    (MICROSOFT, "GatherBlockQuantized", Form::PackedWeights),
    (MICROSOFT, "MatMulBnb4", Form::PackedWeights),
    (MICROSOFT, "MatMulFpQ4", Form::PackedWeights),
    (MICROSOFT, "MatMulNBits", Form::PackedWeights),
    (MICROSOFT, "QMoE", Form::PackedWeights),
];

/// Begins the names of a family for GPUs: `QOrderedMatMul`, `QOrderedAttention`.
const ORDERED: &str = "QOrdered";

impl Form {
    /// That of a node; `None`: nothing in it is quantized.
    pub fn of(node: &Node) -> Option<Self> {
        let own = (node.domain.as_str(), node.op_type.as_str());
        let known = OPERATORS.iter().find(|(domain, op, _)| (*domain, *op) == own);
        let ordered = own.0 == MICROSOFT && own.1.starts_with(ORDERED);
        let pair = || passes::is_tensorrt_pair(node).then_some(Self::Pairs);
        known.map(|row| row.2).or(ordered.then_some(Self::IntegerOperators)).or_else(pair)
    }

    /// What it is, for messages.
    pub fn about(self) -> &'static str {
        match self {
            Self::Pairs => "Q/DQ pairs",
            Self::IntegerOperators => "operators on integers (QOperator form)",
            Self::Dynamic => "dynamic quantization: scales are found from the data of each run",
            Self::PackedWeights => "weights of few bits, packed in blocks",
        }
    }
}

/// A form that a model has, and its operators in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantized {
    /// The form.
    pub form: Form,
    /// Operators, with their domain where that is not the standard's, and how often they stand in the graph and in graphs within its
    /// nodes.
    pub operators: BTreeMap<String, usize>,
}

impl Quantized {
    /// All forms of a graph, in the order in which they are met; none: a float model.
    pub fn of(graph: &Graph) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut count = |node: &Node| {
            let Some(form) = Form::of(node) else { return };
            let known = found.iter().position(|known| known.form == form);
            let place = known.unwrap_or_else(|| {
                found.push(Self { form, operators: BTreeMap::new() });
                found.len() - 1
            });
            *found[place].operators.entry(node.operator()).or_default() += 1;
        };
        for node in &graph.nodes {
            count(node);
            onnx::within(node).iter().for_each(&mut count);
        }
        found
    }

    /// `QLinearConv (2), com.microsoft.QLinearAdd (1)`.
    pub fn counts(&self) -> String {
        let counts = self.operators.iter().map(|(operator, count)| format!("{operator} ({count})"));
        counts.collect::<Vec<String>>().join(", ")
    }
}

/// The first node of a graph that is quantized, or has such a node within, and the form; a pair only where nothing else is, since pairs stand
/// at the ends of integer operators too.
pub fn first(graph: &Graph) -> Option<(&Node, Form)> {
    let forms = graph.nodes.iter().filter_map(|node| {
        let form = Form::of(node).or_else(|| onnx::within(node).iter().find_map(Form::of));
        Some((node, form?))
    });
    let mut pair = None;
    for (node, form) in forms {
        if form != Form::Pairs {
            return Some((node, form));
        }
        pair = pair.or(Some((node, form)));
    }
    pair
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_operator_is_named_once_and_belongs_to_its_domain() {
        let names: BTreeSet<(&str, &str)> = OPERATORS.iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(names.len(), OPERATORS.len());
        let form = |domain: &str, op: &str| {
            Form::of(&Node { domain: domain.to_owned(), ..Node::new("n", op, &[], &[]) })
        };
        assert_eq!(form("", "MatMulInteger"), Some(Form::Dynamic));
        assert_eq!(form("com.microsoft", "QGemm"), Some(Form::IntegerOperators));
        assert_eq!(form("com.microsoft", "QOrderedMatMul"), Some(Form::IntegerOperators));
        assert_eq!(form("com.microsoft", "MatMulNBits"), Some(Form::PackedWeights));
        assert_eq!(form("trt", "TRT_FP8QuantizeLinear"), Some(Form::Pairs));
        assert_eq!(form("", "TRT_INT4DequantizeLinear"), Some(Form::Pairs));
        // A float operator of that domain, and a stranger's of a name that is known.
        assert_eq!((form("com.microsoft", "Gelu"), form("mine", "QGemm")), (None, None));
    }

    #[test]
    fn forms_and_their_operators_are_counted() {
        let node = |name: &str, op: &str| Node::new(name, op, &[], &[]);
        let nodes =
            ["QLinearConv", "Relu", "QuantizeLinear", "QLinearConv"].map(|op| node("n", op));
        let graph = Graph { nodes: nodes.to_vec(), ..Graph::default() };
        let found = Quantized::of(&graph);
        let told: Vec<(Form, String)> =
            found.iter().map(|quantized| (quantized.form, quantized.counts())).collect();
        let expected = [
            (Form::IntegerOperators, "QLinearConv (2)".to_owned()),
            (Form::Pairs, "QuantizeLinear (1)".to_owned()),
        ];
        assert_eq!(told, expected);
        // The pair stands before an operator on integers.
        let graph = Graph { nodes: graph.nodes[1..].to_vec(), ..Graph::default() };
        let (first, form) = first(&graph).unwrap();
        assert_eq!((first.op_type.as_str(), form), ("QLinearConv", Form::IntegerOperators));
    }
}
