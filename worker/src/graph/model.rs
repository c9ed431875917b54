//! A model: its graph and what surrounds it.

use std::collections::HashMap;

use bytes::Bytes;
use indexmap::IndexMap;

use super::{DType, Node, TensorData};

/// An ONNX model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets; the one with an empty domain is the standard's.
    pub opsets: Vec<OperatorSet>,
    /// What wrote it.
    pub producer_name: String,
    /// Its version.
    pub producer_version: String,
    /// Domain of the model, kept.
    pub domain: String,
    /// Version of the model, kept.
    pub model_version: i64,
    /// Documentation, kept.
    pub doc: String,
    /// `metadata_props`; keys of our own begin with `qpipe.`.
    pub metadata: IndexMap<String, String>,
    /// Whether weights lie in a file beside the model's own.
    pub external_data: bool,
    /// The graph.
    pub graph: Graph,
    /// Encoded `ModelProto` fields that nothing here understands (functions, training info),
    /// written back as they came.
    pub opaque: Vec<u8>,
}

/// An imported operator set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorSet {
    /// Empty for the standard's own.
    pub domain: String,
    /// Its version.
    pub version: i64,
}

/// A graph. Nodes stand in topological order, as the standard demands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// Operators, each after those it depends on.
    pub nodes: Vec<Node>,
    /// Inputs that a caller feeds.
    pub inputs: Vec<ValueInfo>,
    /// Inputs that have an initializer, each with its place in the file's list of inputs: IR version 3 lists all
    /// initializers there; later, a caller may feed another value than the initializer's.
    pub defaults: Vec<(usize, ValueInfo)>,
    /// Outputs.
    pub outputs: Vec<ValueInfo>,
    /// Constants by name, in file order.
    pub initializers: IndexMap<String, TensorData>,
    /// Encoded `TensorProto` fields of initializers beyond name, type, shape and elements (documentation), by name.
    pub initializer_notes: IndexMap<String, Vec<u8>>,
    /// Constants that nothing here understands, by name, in file order.
    pub opaque_initializers: IndexMap<String, OpaqueTensor>,
    /// Types of values in between, where the file has them.
    pub value_infos: Vec<ValueInfo>,
    /// Documentation, kept.
    pub doc: String,
    /// Encoded `GraphProto` fields that nothing here understands, written back as they came.
    pub opaque: Vec<u8>,
}

/// A constant of a form that nothing here understands, written back as it came: a sparse one, or one whose
/// element type is none of [`DType`].
#[derive(Clone, Debug, PartialEq)]
pub struct OpaqueTensor {
    /// Whether it is a `SparseTensorProto`; a `TensorProto` otherwise.
    pub sparse: bool,
    /// The encoded message without raw elements.
    pub message: Vec<u8>,
    /// Raw elements, where it has some.
    pub data: Option<Bytes>,
}

/// Type of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// The value's name.
    pub name: String,
    /// Element type, where it is a tensor of a known type.
    pub dtype: Option<DType>,
    /// Extents; `None`: the rank is not known.
    pub shape: Option<Vec<Dim>>,
    /// The encoded `ValueInfoProto`, where it says more than the fields above (documentation, denotations, a
    /// type that is no tensor); what they do not say is written back as it came.
    pub opaque: Option<Vec<u8>>,
}

/// An extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Fixed.
    Fixed(i64),
    /// Free, with a name such as `batch`.
    Named(String),
    /// Free.
    Unknown,
}

impl ValueInfo {
    /// A float tensor.
    pub fn f32(name: &str, shape: Vec<Dim>) -> Self {
        Self { name: name.to_owned(), dtype: Some(DType::F32), shape: Some(shape), opaque: None }
    }
}

impl Model {
    /// A model of our own making around `graph`.
    pub fn new(graph: Graph, opset: i64) -> Self {
        Self {
            // 8 is what opset 13 to 17 were published with; every runtime of this decade reads it.
            ir_version: if opset > 18 { 9 } else { 8 },
            opsets: vec![OperatorSet { domain: String::new(), version: opset }],
            producer_name: "qpipe".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            domain: String::new(),
            model_version: 0,
            doc: String::new(),
            metadata: IndexMap::new(),
            external_data: false,
            graph,
            opaque: Vec::new(),
        }
    }

    /// Version of the standard's own operator set.
    pub fn opset(&self) -> i64 {
        let own = |set: &&OperatorSet| set.domain.is_empty() || set.domain == "ai.onnx";
        self.opsets.iter().find(own).map_or(1, |set| set.version)
    }

    /// Version of the operator set that a node's operator is of; 0: the model imports none of its domain.
    pub fn opset_of(&self, node: &Node) -> i64 {
        let own = |set: &&OperatorSet| set.domain == node.domain;
        match node.domain.as_str() {
            "" => self.opset(),
            _ => self.opsets.iter().find(own).map_or(0, |set| set.version),
        }
    }

    /// For messages: a node, and the version of its operator set.
    pub fn place(&self, node: &Node) -> String {
        format!("{}, opset {}", node.place(), self.opset_of(node))
    }
}

impl Graph {
    /// For each value the indices of the nodes that read it, a node once for each reading.
    pub fn consumers(&self) -> HashMap<&str, Vec<usize>> {
        let mut consumers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for input in node.inputs.iter().filter(|name| !name.is_empty()) {
                consumers.entry(input).or_default().push(index);
            }
        }
        consumers
    }

    /// For each value the index of the node that makes it.
    pub fn producers(&self) -> HashMap<&str, usize> {
        let mut producers = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                producers.insert(output.as_str(), index);
            }
        }
        producers
    }

    /// Whether a value is a constant, understood or not.
    pub fn is_initializer(&self, name: &str) -> bool {
        self.initializers.contains_key(name) || self.opaque_initializers.contains_key(name)
    }

    /// Whether a value is one of the graph's outputs.
    pub fn is_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output.name == name)
    }

    /// The node that makes the first output, behind what only passes values on or rounds them: where that is a Softmax or a Sigmoid, the model
    /// gives probabilities, not logits.
    pub fn ending(&self) -> Option<&Node> {
        const PASSED: [&str; 9] = [
            "Identity",
            "Cast",
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Dropout",
            "QuantizeLinear",
            "DequantizeLinear",
        ];
        let producers = self.producers();
        let mut value = self.outputs.first()?.name.as_str();
        // A graph that is read may have a cycle.
        for _ in &self.nodes {
            let node = &self.nodes[*producers.get(value)?];
            if !PASSED.contains(&node.op_type.as_str()) {
                return Some(node);
            }
            value = node.inputs.first()?;
        }
        None
    }

    /// A name that no value, node or initializer has yet, made from `base`.
    pub fn fresh_name(&self, base: &str) -> String {
        let taken = |name: &str| {
            self.is_initializer(name)
                || self.inputs.iter().any(|input| input.name == name)
                || self.nodes.iter().any(|n| n.name == name || n.outputs.iter().any(|o| o == name))
        };
        if !taken(base) {
            return base.to_owned();
        }
        (1..).map(|i| format!("{base}_{i}")).find(|name| !taken(name)).expect("names do not end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_the_outputs_is_found_behind_what_passes_them_on() {
        let graph = |ops: &[&str]| {
            let value = |index: usize| format!("v{index}");
            let nodes = ops.iter().enumerate().map(|(index, op)| {
                Node::new("", op, &[&value(index), "constant"], &[&value(index + 1)])
            });
            Graph {
                outputs: vec![ValueInfo::f32(&value(ops.len()), Vec::new())],
                nodes: nodes.collect(),
                ..Graph::default()
            }
        };
        let ending = |ops: &[&str]| graph(ops).ending().map(|node| node.op_type.clone());
        let found = |op: &str| Some(op.to_owned());
        assert_eq!(ending(&["Gemm", "Softmax"]), found("Softmax"));
        let pairs = ["Softmax", "QuantizeLinear", "DequantizeLinear", "Reshape", "Identity"];
        assert_eq!(ending(&pairs), found("Softmax"));
        assert_eq!(ending(&["Softmax", "Gemm", "Cast"]), found("Gemm"));
        assert_eq!(ending(&["Identity"]), None, "an input");
        let mut round = graph(&["Identity", "Identity"]);
        round.nodes[0].inputs[0] = "v2".to_owned();
        assert_eq!(round.ending(), None);
    }
}
