//! Small float graphs, written as lists. A value is called as the node that makes it.

use crate::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};

/// A graph in the making; its input is `x`.
pub(super) struct Draft(Graph);

impl Draft {
    /// One whose input has that shape.
    pub(super) fn new(shape: &[i64]) -> Self {
        let shape = shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
        Self(Graph { inputs: vec![ValueInfo::f32("x", shape)], ..Graph::default() })
    }

    /// A node without attributes.
    pub(super) fn node(&mut self, name: &str, operator: &str, inputs: &[&str]) -> &mut Node {
        self.0.nodes.push(Node::new(name, operator, inputs, &[name]));
        self.0.nodes.last_mut().expect("it was just added")
    }

    /// A constant 1, 2, 3, … of that shape.
    pub(super) fn constant(&mut self, name: &str, shape: &[i64]) {
        let count = shape.iter().product::<i64>();
        let values: Vec<f32> = (0..count).map(|index| index as f32 + 1.0).collect();
        self.0.initializers.insert(name.to_owned(), TensorData::f32(shape, &values));
    }

    /// A convolution of 4 channels to 4 in so many groups; its weight is `NAME_w`.
    pub(super) fn conv(&mut self, name: &str, input: &str, groups: i64) {
        let weight = format!("{name}_w");
        self.constant(&weight, &[4, 4 / groups, 1, 1]);
        let node = self.node(name, "Conv", &[input, &weight]);
        node.attributes.insert("group".to_owned(), Attribute::Int(groups));
    }

    /// A product with a constant matrix, `NAME_w`.
    pub(super) fn matmul(&mut self, name: &str, input: &str, shape: [i64; 2]) {
        let weight = format!("{name}_w");
        self.constant(&weight, &shape);
        self.node(name, "MatMul", &[input, &weight]);
    }

    /// Attention of one head over 4 values a token, with a mask that is computed, and a residual addition: `q`, `k`,
    /// `v`, `scores` = q·kᵀ, `probabilities`, `mixed`, `projected`, `sum`.
    pub(super) fn attention(&mut self) {
        for name in ["q", "k", "v"] {
            self.matmul(&format!("{name}_product"), "x", [4, 4]);
            self.constant(&format!("{name}_b"), &[4]);
            self.node(name, "Add", &[&format!("{name}_product"), &format!("{name}_b")]);
        }
        let turned = Attribute::Ints(vec![0, 2, 1]);
        self.node("turned", "Transpose", &["k"]).attributes.insert("perm".to_owned(), turned);
        self.node("scores", "MatMul", &["q", "turned"]);
        self.constant("root", &[]);
        self.node("scaled", "Div", &["scores", "root"]);
        self.node("mask", "Sign", &["x"]);
        self.node("masked", "Add", &["scaled", "mask"]);
        self.node("probabilities", "Softmax", &["masked"]);
        self.node("mixed", "MatMul", &["probabilities", "v"]);
        self.matmul("projected", "mixed", [4, 4]);
        self.node("sum", "Add", &["x", "projected"]);
    }

    /// The model.
    pub(super) fn end(self, outputs: &[&str]) -> Model {
        let mut graph = self.0;
        graph.outputs = outputs
            .iter()
            .map(|name| ValueInfo { shape: None, ..ValueInfo::f32(name, Vec::new()) })
            .collect();
        Model::new(graph, 17)
    }
}
