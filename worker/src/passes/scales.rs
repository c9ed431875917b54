//! Both halves of a Q/DQ pair read the same constant as their scale.

use crate::graph::Graph;

/// Lets each DequantizeLinear read the very constant that its QuantizeLinear reads as its scale, where its own has the same
/// elements: some exporters write two. Training then changes both at once.
pub fn share_pair_scales(graph: &mut Graph) {
    let producers: Vec<(usize, usize)> = {
        let producers = graph.producers();
        let dequantizes =
            graph.nodes.iter().enumerate().filter(|(_, n)| n.op_type == "DequantizeLinear");
        let pairs =
            dequantizes.filter_map(|(index, node)| Some((index, *producers.get(node.input(0)?)?)));
        pairs.filter(|&(_, maker)| graph.nodes[maker].op_type == "QuantizeLinear").collect()
    };
    for (dequantize, quantize) in producers {
        let scale = |index: usize| graph.nodes[index].input(1).map(str::to_owned);
        let (Some(own), Some(other)) = (scale(dequantize), scale(quantize)) else { continue };
        let find = |name: &str| graph.initializers.get(name);
        if own != other && find(&own).is_some() && find(&own) == find(&other) {
            graph.nodes[dequantize].inputs[1] = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, TensorData};

    #[test]
    fn equal_scales_of_a_pair_become_one() {
        let scale = |value| TensorData::f32(&[], &[value]);
        let pair = |own: &str| {
            let mut graph = Graph {
                nodes: vec![
                    Node::new("q", "QuantizeLinear", &["x", "s"], &["q"]),
                    Node::new("d", "DequantizeLinear", &["q", own], &["y"]),
                ],
                ..Graph::default()
            };
            for (name, value) in [("s", 0.5), ("same", 0.5), ("other", 0.25)] {
                graph.initializers.insert(name.to_owned(), scale(value));
            }
            share_pair_scales(&mut graph);
            graph.nodes[1].inputs[1].clone()
        };
        assert_eq!(pair("same"), "s");
        assert_eq!(pair("other"), "other");
        assert_eq!(pair("s"), "s");
    }
}
