//! Layers with a constant weight: which channels an element of it belongs to.

use crate::Result;
use crate::graph::{DType, Graph, Node};

/// How the weight of a layer is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Output channels.
    pub outputs: usize,
    /// Input channels; of a Gemm or MatMul, columns of its input.
    pub inputs: usize,
    /// Elements of an output channel and an input channel: the kernel's.
    inner: usize,
    convolution: bool,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// `[O, I / group, kernel…]`.
    Grouped {
        /// Groups.
        groups: usize,
    },
    /// `[I, O, kernel…]`.
    InputFirst,
}

impl Layout {
    /// That of a Conv, ConvTranspose (one group), Gemm or MatMul with a constant float weight as second input; `None` for other nodes.
    ///
    /// # Errors
    /// An attribute of another type than the standard's.
    pub fn of(graph: &Graph, node: &Node) -> Result<Option<Self>> {
        let weight = node.input(1).and_then(|name| graph.initializers.get(name));
        let Some(weight) = weight.filter(|weight| weight.dtype == DType::F32) else {
            return Ok(None);
        };
        if !node.domain.is_empty() || weight.is_empty() {
            return Ok(None);
        }
        Self::of_shape(node, &weight.shape)
    }

    /// The same for a weight of that shape.
    ///
    /// # Errors
    /// An attribute of another type than the standard's.
    pub fn of_shape(node: &Node, shape: &[i64]) -> Result<Option<Self>> {
        let shape: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
        let inner = shape.iter().skip(2).product();
        let groups = node.int("group", 1)?.max(1) as usize;
        let [first, second, ..] = shape[..] else { return Ok(None) };
        let convolution = node.op_type.starts_with("Conv");
        let kind = Kind::Grouped { groups: 1 };
        let grouped = Self { outputs: first, inputs: second, inner, convolution, kind };
        let kind = Kind::InputFirst;
        let input_first = Self { outputs: second, inputs: first, inner, convolution, kind };
        Ok(match node.op_type.as_str() {
            "Conv" if shape.len() > 2 && first % groups == 0 => {
                Some(Self { inputs: second * groups, kind: Kind::Grouped { groups }, ..grouped })
            }
            "ConvTranspose" if shape.len() > 2 && groups == 1 => Some(input_first),
            "Gemm" if shape.len() == 2 && node.int("transA", 0)? == 0 => {
                Some(if node.int("transB", 0)? != 0 { grouped } else { input_first })
            }
            "MatMul" if shape.len() == 2 => Some(input_first),
            _ => None,
        })
    }

    /// Whether channels are the second axis of what the layer reads and makes; the last axis of a product's.
    pub fn is_convolution(&self) -> bool {
        self.convolution
    }

    /// Output and input channel of the element at a place of the row-major weight.
    pub fn channels(&self, element: usize) -> (usize, usize) {
        let row = element / self.inner;
        match self.kind {
            Kind::Grouped { groups } => {
                let each = self.inputs / groups;
                let (output, input) = (row / each, row % each);
                (output, output / (self.outputs / groups) * each + input)
            }
            Kind::InputFirst => (row % self.outputs, row / self.outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, TensorData};

    fn layout(op: &str, shape: &[i64], attribute: (&str, i64)) -> Option<Layout> {
        let node =
            Node::new("l", op, &["x", "w"], &["y"]).with(attribute.0, Attribute::Int(attribute.1));
        let count = shape.iter().product::<i64>() as usize;
        let weight = TensorData::f32(shape, &vec![0.0; count]);
        let graph = Graph {
            initializers: [("w".to_owned(), weight)].into_iter().collect(),
            ..Graph::default()
        };
        Layout::of(&graph, &node).unwrap()
    }

    #[test]
    fn each_element_is_of_an_output_and_an_input_channel() {
        let depthwise = layout("Conv", &[6, 1, 3, 3], ("group", 6)).unwrap();
        assert_eq!((depthwise.outputs, depthwise.inputs), (6, 6));
        assert_eq!(depthwise.channels(4 * 9 + 8), (4, 4));
        let grouped = layout("Conv", &[4, 3, 1, 1], ("group", 2)).unwrap();
        assert_eq!((grouped.outputs, grouped.inputs), (4, 6));
        assert_eq!([0, 5, 6, 11].map(|e| grouped.channels(e)), [(0, 0), (1, 2), (2, 3), (3, 5)]);
        let transposed = layout("ConvTranspose", &[2, 3, 2, 2], ("group", 1)).unwrap();
        assert_eq!(transposed.channels(3 * 4 + 4 + 1), (1, 1));
        let rows = layout("Gemm", &[2, 5], ("transB", 1)).unwrap();
        assert_eq!((rows.outputs, rows.channels(7)), (2, (1, 2)));
        let columns = layout("Gemm", &[5, 2], ("transB", 0)).unwrap();
        assert_eq!((columns.outputs, columns.channels(7)), (2, (1, 3)));
    }

    #[test]
    fn other_layers_have_none() {
        assert_eq!(layout("ConvTranspose", &[2, 3, 2, 2], ("group", 2)), None);
        assert_eq!(layout("Gemm", &[5, 2], ("transA", 1)), None);
        assert_eq!(layout("Add", &[5, 2], ("group", 1)), None);
        assert_eq!(layout("MatMul", &[5], ("group", 1)), None);
    }
}
