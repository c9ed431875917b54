//! What rules ask of a graph with pairs.

use std::collections::HashMap;

use qpipe::stages::insert_qdq::Target;

use super::moved::{Weight, origin, scales};
use crate::graph::{Attribute, Graph, Node, TensorData};
use crate::ops::WEIGHTED;
use crate::quant::placement::View;

/// A graph with pairs, and facts about it.
pub struct PairView<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The same as its file has it, with operators that were made pairs of the standard's.
    pub written: &'a Graph,
    /// The runtime that is asked about; `None`: all.
    pub target: Option<Target>,
    view: View<'a>,
    constants: HashMap<&'a str, &'a TensorData>,
}

impl<'a> PairView<'a> {
    /// Looks at a graph.
    pub fn of(graph: &'a Graph, target: Option<Target>) -> Self {
        let mut constants: HashMap<&str, &TensorData> =
            graph.initializers.iter().map(|(name, data)| (name.as_str(), data)).collect();
        for node in graph.nodes.iter().filter(|node| node.is_constant()) {
            if let (Some(output), Some(Attribute::Tensor(data))) =
                (node.outputs.first(), node.attributes.get("value"))
            {
                constants.insert(output, data);
            }
        }
        Self { graph, written: graph, target, view: View::of(graph), constants }
    }

    /// With the graph as its file has it.
    pub fn as_written(self, written: &'a Graph) -> Self {
        Self { written, ..self }
    }

    /// The node that makes a value.
    pub fn producer(&self, name: &str) -> Option<&'a Node> {
        self.view.producer(name)
    }

    /// The nodes that read a value.
    pub fn readers(&self, name: &str) -> Vec<&'a Node> {
        self.view.readers(name).into_iter().map(|(node, _)| &self.graph.nodes[node]).collect()
    }

    /// The nodes that read a value, also those that read it behind a pair, in place of the pair.
    pub fn readers_behind_pairs(&self, name: &str) -> Vec<&'a Node> {
        let behind = |node: &'a Node, op: &str| {
            let output = node.outputs.first().filter(|_| node.op_type == op);
            output.map_or_else(|| vec![node], |output| self.readers(output))
        };
        let stored = self.readers(name).into_iter().flat_map(|node| behind(node, "QuantizeLinear"));
        stored.flat_map(|node| behind(node, "DequantizeLinear")).collect()
    }

    /// Most layers with a weight on a way from an input to the value.
    pub fn depth(&self, name: &str) -> usize {
        self.view.depth(name)
    }

    /// Whether a value is a constant.
    pub fn is_constant(&self, name: &str) -> bool {
        self.constants.contains_key(name)
    }

    /// A constant's elements.
    pub fn constant(&self, name: &str) -> Option<&'a TensorData> {
        self.constants.get(name).copied()
    }

    /// The DequantizeLinear that gives a value.
    pub fn dequantize(&self, name: &str) -> Option<&'a Node> {
        self.producer(name).filter(|node| node.op_type == "DequantizeLinear")
    }

    /// The value that a pair stands on: `x` where `name` is DQ(Q(x)), for stored integers that themselves.
    pub fn behind(&self, name: &str) -> Option<&'a str> {
        let stored = self.dequantize(name)?.input(0)?;
        match self.producer(stored).filter(|node| node.op_type == "QuantizeLinear") {
            Some(quantize) => quantize.input(0),
            None => Some(stored),
        }
    }

    /// Scales and zero points of a Q or DQ, where they are constants; no zero point is 0.
    pub fn parameters(&self, node: &Node) -> Option<(Vec<f32>, Vec<i64>)> {
        let scale = self.constant(node.input(1)?)?.to_f32().ok()?;
        let zero = match node.input(2) {
            Some(zero) => self.constant(zero)?.whole_numbers()?,
            None => vec![0],
        };
        Some((scale, zero))
    }

    /// Whether it is a layer with a weight: a constant, or the pair of one.
    pub fn is_layer(&self, node: &Node) -> bool {
        let weight = || self.weight(node).is_some();
        node.domain.is_empty() && WEIGHTED.contains(&node.op_type.as_str()) && weight()
    }

    /// A layer's weight.
    pub fn weight<'b>(&self, layer: &'b Node) -> Option<Weight<'b>>
    where
        'a: 'b,
    {
        Weight::of(self, layer.input(1)?)
    }

    /// Whether a layer reads its input, and its weight, through pairs; what only moves elements may stand in between.
    pub fn quantized(&self, layer: &Node) -> (bool, bool) {
        let weight = layer.input(1).map(|name| origin(self, name).value);
        let weight = weight.is_some_and(|name| self.dequantize(name).is_some());
        (layer.input(0).is_some_and(|name| self.is_quantized(name)), weight)
    }

    /// Whether a value is read through a pair: of one scale, where several are joined on the way.
    pub fn is_quantized(&self, value: &str) -> bool {
        scales(self, value) == Some(1)
    }

    /// Whether a layer becomes one integer kernel: both are quantized.
    pub fn is_integer(&self, layer: &Node) -> bool {
        self.is_layer(layer) && self.quantized(layer) == (true, true)
    }

    /// Whether the operator only moves elements of its first input.
    pub fn moves(&self, node: usize) -> bool {
        self.view.moves(node)
    }

    /// Layers, in the order of the graph.
    pub fn layers(&self) -> impl Iterator<Item = &'a Node> + '_ {
        self.graph.nodes.iter().filter(|node| self.is_layer(node))
    }
}
