//! What policies ask of a graph.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::graph::{Graph, Node, TensorData};
use crate::ops::WEIGHTED;

/// Layers whose integer kernels write floats as well, or that have none.
const PRODUCTS: [&str; 3] = ["Gemm", "MatMul", "ConvTranspose"];
/// Operators that give all elements of their first input, or its greatest, unchanged.
const MOVING: [&str; 9] = [
    "MaxPool",
    "GlobalMaxPool",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Identity",
    "Dropout",
];

/// Operators that give some elements of their first input, unchanged: each part may have a range of its own.
const DIVIDING: [&str; 2] = ["Split", "Slice"];

/// A float graph and facts about it.
pub struct View<'a> {
    /// The graph.
    pub graph: &'a Graph,
    consumers: HashMap<&'a str, Vec<usize>>,
    producers: HashMap<&'a str, usize>,
    positive: HashSet<&'a str>,
    depths: HashMap<&'a str, usize>,
    whole: HashSet<&'a str>,
    convolved: HashSet<&'a str>,
}

/// Operators that make whole numbers of values of any type.
const COUNTING: [&str; 5] = ["Shape", "Size", "NonZero", "ArgMax", "ArgMin"];
/// Operators that make whole numbers of whole numbers.
const KEEPING: [&str; 20] = [
    "Concat",
    "Gather",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Flatten",
    "Transpose",
    "Identity",
    "Split",
    "Expand",
    "Tile",
    "Range",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Min",
    "Max",
];

fn gives_all(node: &Node) -> bool {
    // Other modes compute means.
    let copies = || node.text("mode", "nearest").is_ok_and(|mode| mode == "nearest");
    MOVING.contains(&node.op_type.as_str()) || (node.op_type == "Resize" && copies())
}

fn gives_part(node: &Node) -> bool {
    DIVIDING.contains(&node.op_type.as_str())
}

impl<'a> View<'a> {
    /// Looks at a graph.
    pub fn of(graph: &'a Graph) -> Self {
        let mut view = Self {
            graph,
            consumers: graph.consumers(),
            producers: graph.producers(),
            positive: HashSet::new(),
            depths: HashMap::new(),
            whole: HashSet::new(),
            convolved: HashSet::new(),
        };
        for node in &graph.nodes {
            let depth = node.inputs.iter().map(|name| view.depth(name)).max().unwrap_or(0);
            let depth = depth + usize::from(WEIGHTED.contains(&node.op_type.as_str()));
            let positive = view.makes_positive(node);
            let whole = view.makes_whole(node);
            let convolved = view.makes_convolved(node);
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                view.depths.insert(output, depth);
                if whole {
                    view.whole.insert(output);
                }
                if positive {
                    view.positive.insert(output);
                }
                if convolved {
                    view.convolved.insert(output);
                }
            }
        }
        view
    }

    /// ONNX's number of a type behind `to`: uint8 to int64 and bool are 2 to 9, uint32 and uint64 12 and 13.
    fn makes_whole(&self, node: &Node) -> bool {
        match node.op_type.as_str() {
            "Cast" => matches!(node.int("to", 1), Ok(2..=7 | 9 | 12 | 13)),
            op if COUNTING.contains(&op) => true,
            op => KEEPING.contains(&op) && node.input(0).is_some_and(|name| self.is_whole(name)),
        }
    }

    /// Whether a value is computed from extents and other whole numbers; such values are never quantized.
    pub fn is_whole(&self, name: &str) -> bool {
        self.whole.contains(name)
    }

    fn makes_positive(&self, node: &Node) -> bool {
        let reads = |index: usize| node.input(index).is_some_and(|name| self.is_positive(name));
        match node.op_type.as_str() {
            "Relu" | "Sigmoid" | "HardSigmoid" | "Softmax" => true,
            "Clip" => {
                let least = node.input(1).and_then(|name| self.constant(name));
                let least = least.and_then(|data| data.to_f32().ok());
                least.is_some_and(|least| least.first().is_some_and(|least| *least >= 0.0))
            }
            "AveragePool" | "GlobalAveragePool" | "ReduceMean" | "ReduceMax" => reads(0),
            "Abs" | "Sqrt" => true,
            "Mul" | "Pow" if self.is_even_power(node) => true,
            "Add" | "Mul" | "Concat" => (0..node.inputs.len()).all(reads),
            _ => (gives_all(node) || gives_part(node)) && reads(0),
        }
    }

    /// Whether the operator gives an even power of its input: `Mul(a, a)`, or Pow with 2, 4, ….
    pub fn is_even_power(&self, node: &Node) -> bool {
        let (base, exponent) = (node.input(0), node.input(1));
        match node.op_type.as_str() {
            "Mul" => base == exponent,
            "Pow" => {
                let data = exponent.and_then(|name| self.constant(name)).map(TensorData::to_f32);
                let even = |data: Vec<f32>| data.iter().all(|&exponent| exponent % 2.0 == 0.0);
                data.is_some_and(|data| data.is_ok_and(even))
            }
            _ => false,
        }
    }

    fn makes_convolved(&self, node: &Node) -> bool {
        let mut computed = node.inputs.iter().filter(|name| self.constant(name).is_none());
        match node.op_type.as_str() {
            "Conv" => true,
            // A bias behind a matrix product, or positions: floats.
            "Add" => node.inputs.iter().all(|name| self.is_convolved(name)),
            op if PRODUCTS.contains(&op) || op.ends_with("Normalization") => false,
            _ => computed.any(|name| self.is_convolved(name)),
        }
    }

    /// Whether a value comes from convolutions, with no matrix product, normalization or addition of anything else in between: where
    /// their kernels write integers only, as ONNX Runtime's do, integers are there already.
    pub fn is_convolved(&self, name: &str) -> bool {
        self.convolved.contains(name)
    }

    /// Least and greatest value that an operator can give, where it has both, also behind operators that move elements.
    pub fn bounds(&self, name: &str) -> Option<(f32, f32)> {
        let node = self.producer(self.source(name))?;
        let bounded = ["Sigmoid", "HardSigmoid"].contains(&node.op_type.as_str());
        bounded.then_some((0.0, 1.0))
    }

    /// Whether a value is never negative, by the operators that make it.
    pub fn is_positive(&self, name: &str) -> bool {
        self.positive.contains(name)
    }

    /// Most layers with a weight on a way from a graph's input to the value.
    pub fn depth(&self, name: &str) -> usize {
        self.depths.get(name).copied().unwrap_or(0)
    }

    /// The constant of that name.
    pub fn constant(&self, name: &str) -> Option<&'a TensorData> {
        self.graph.initializers.get(name)
    }

    /// Name of a node's input that is computed, `None` where it is a constant or left out.
    pub fn activation(&self, node: usize, index: usize) -> Option<&'a str> {
        self.graph.nodes[node].input(index).filter(|name| self.constant(name).is_none())
    }

    /// The nodes and inputs that read a value.
    pub fn readers(&self, name: &str) -> Vec<(usize, usize)> {
        let mut nodes = self.consumers.get(name).cloned().unwrap_or_default();
        nodes.dedup();
        let inputs = |node: usize| {
            let inputs = self.graph.nodes[node].inputs.iter().enumerate();
            inputs.filter(|(_, input)| *input == name).map(move |(index, _)| (node, index))
        };
        nodes.into_iter().flat_map(inputs).collect()
    }

    /// The node that makes a value.
    pub fn producer(&self, name: &str) -> Option<&'a Node> {
        self.producers.get(name).map(|&index| &self.graph.nodes[index])
    }

    /// Index of the node that makes a value.
    pub fn producer_index(&self, name: &str) -> Option<usize> {
        self.producers.get(name).copied()
    }

    /// Whether the node is a layer: it has a weight, or multiplies two matrices.
    pub fn is_layer(&self, node: usize) -> bool {
        let node = &self.graph.nodes[node];
        node.domain.is_empty() && WEIGHTED.contains(&node.op_type.as_str())
    }

    /// The nearest layers on all ways back from a value.
    pub fn layers_behind(&self, value: &str) -> BTreeSet<usize> {
        let (mut seen, mut found) = (HashSet::new(), BTreeSet::new());
        let mut open: Vec<usize> = self.producer_index(value).into_iter().collect();
        while let Some(node) = open.pop() {
            if self.is_layer(node) {
                found.insert(node);
            } else if seen.insert(node) {
                let inputs = &self.graph.nodes[node].inputs;
                open.extend(inputs.iter().filter_map(|input| self.producer_index(input)));
            }
        }
        found
    }

    /// The value that a value's elements are copies of: itself, but behind a max pooling or a change of
    /// shape that operator's input.
    pub fn origin<'b>(&self, mut name: &'b str) -> &'b str
    where
        'a: 'b,
    {
        while let Some(node) = self.producer(name)
            && gives_all(node)
            && let Some(input) = node.input(0)
            && self.constant(input).is_none()
        {
            name = input;
        }
        name
    }

    /// The value that a value's elements are among: as [`View::origin`], and behind what divides a value that one.
    pub fn source<'b>(&self, mut name: &'b str) -> &'b str
    where
        'a: 'b,
    {
        loop {
            name = self.origin(name);
            match self.producer(name) {
                Some(node) if gives_part(node) => {
                    match node.input(0).filter(|input| self.constant(input).is_none()) {
                        Some(input) => name = input,
                        None => return name,
                    }
                }
                _ => return name,
            }
        }
    }

    /// Whether the operator only moves elements of its first input, to one output or to several.
    pub fn moves(&self, node: usize) -> bool {
        gives_all(&self.graph.nodes[node]) || gives_part(&self.graph.nodes[node])
    }

    /// Whether the operator gives parts of its first input.
    pub fn divides(&self, node: usize) -> bool {
        gives_part(&self.graph.nodes[node])
    }
}
