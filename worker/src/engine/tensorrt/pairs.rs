//! Of which types the Q/DQ pairs of a model are: up to version 10 each has a flag of its own.

use std::collections::HashMap;

use crate::graph::{DType, Graph, Node};

/// Types of the Q/DQ pairs of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Integers of 8 bits, and all that has no flag of its own.
    pub int8: bool,
    /// Floats of 8 bits.
    pub float8: bool,
    /// Integers of 4 bits.
    pub int4: bool,
}

impl Pairs {
    /// Those of a graph.
    pub fn of(graph: &Graph) -> Self {
        let mut found = Self::default();
        let types = Types::of(graph);
        for node in graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear") {
            match types.pair(node) {
                "float8" => found.float8 = true,
                "int4" => found.int4 = true,
                _ => found.int8 = true,
            }
        }
        found
    }

    /// Whether there are any.
    pub fn any(self) -> bool {
        self.int8 || self.float8 || self.int4
    }
}

/// Finds the types of a graph's pairs.
pub struct Types<'a> {
    graph: &'a Graph,
    producers: HashMap<&'a str, usize>,
}

impl<'a> Types<'a> {
    /// For the pairs of `graph`.
    pub fn of(graph: &'a Graph) -> Self {
        Self { graph, producers: graph.producers() }
    }

    /// What computes a value.
    pub fn maker(&self, value: &str) -> Option<&'a Node> {
        Some(&self.graph.nodes[*self.producers.get(value)?])
    }

    /// `float8`, `int4` or `int8`: of what a DequantizeLinear reads, of its zero point, or what the QuantizeLinear before it says.
    pub fn pair(&self, dequantize: &Node) -> &'static str {
        let input = dequantize.inputs.first();
        let quantize = input.and_then(|input| self.maker(input));
        let stated = |node: &Node| {
            let number = node.int("output_dtype", 0).ok()?;
            DType::from_onnx(i32::try_from(number).ok()?)
        };
        let dtype = input
            .and_then(|input| self.constant(input))
            .or_else(|| self.constant(dequantize.inputs.get(2)?))
            .or_else(|| self.constant(quantize?.inputs.get(2)?))
            .or_else(|| stated(quantize?));
        match dtype {
            Some(DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ) => {
                "float8"
            }
            Some(DType::I4 | DType::U4) => "int4",
            _ => "int8",
        }
    }

    /// The type of a constant.
    fn constant(&self, name: &str) -> Option<DType> {
        if let Some(tensor) = self.graph.initializers.get(name) {
            return Some(tensor.dtype);
        }
        let node = self.maker(name).filter(|node| node.is_constant())?;
        node.constant().ok().map(|tensor| tensor.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;
    use crate::quant::scheme::zero_points;

    /// A model of one pair whose zero point is of `dtype`, where there is one.
    fn graph(dtype: Option<DType>, stated: Option<i64>) -> Graph {
        let mut graph = Graph::default();
        let zero = if dtype.is_some() { "zero" } else { "" };
        let mut quantize = Node::new("q", "QuantizeLinear", &["x", "scale", zero], &["x_q"]);
        if let Some(number) = stated {
            quantize = quantize.with("output_dtype", Attribute::Int(number));
        }
        graph.nodes.push(quantize);
        graph.nodes.push(Node::new("dq", "DequantizeLinear", &["x_q", "scale", zero], &["y"]));
        if let Some(dtype) = dtype {
            let zero = zero_points(dtype, &[], &[0]);
            graph.initializers.insert("zero".to_owned(), zero);
        }
        graph
    }

    #[test]
    fn pairs_are_of_the_type_of_their_zero_point() {
        let (int8, float8) = (Pairs { int8: true, ..Pairs::default() }, DType::F8E4M3FN);
        let of = |dtype, stated| Pairs::of(&graph(dtype, stated));
        assert_eq!(of(Some(DType::I8), None), int8);
        assert_eq!(of(None, None), int8);
        let expected = Pairs { float8: true, ..Pairs::default() };
        assert_eq!(of(Some(float8), None), expected);
        assert_eq!(of(None, Some(float8.onnx().into())), expected);
        assert_eq!(of(Some(DType::I4), None), Pairs { int4: true, ..Pairs::default() });
        assert!(!Pairs::of(&Graph::default()).any());
        // A weight that is stored in its type has no QuantizeLinear, and perhaps no zero point.
        let mut stored = graph(None, None);
        stored.nodes.remove(0);
        stored.initializers.insert("x_q".to_owned(), zero_points(float8, &[1], &[0]));
        assert_eq!(Pairs::of(&stored), expected);
    }
}
