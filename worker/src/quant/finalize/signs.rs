//! Relu and Clip in front of float8 for ONNX Runtime, which takes its QuantizeLinear for one of integers that cuts values off at its zero point.
//!
//! With optimizations on it drops such a Relu, and the model computes something else; at such a Clip it stops (*Unexpected data type for QuantizeLinear
//! input `y_zero_point` of 17*). It does neither to Max and Min. Seen with its version 1.32.

use crate::graph::{DType, Graph, Node, TensorData};

/// Writes Relu as Max with 0, and Clip as Max and Min with its bounds, where a QuantizeLinear to float8 reads what they give.
pub(super) fn keep(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        if is_quantized_to_float8(graph, index) {
            match graph.nodes[index].op_type.as_str() {
                "Relu" => relu(graph, index),
                "Clip" => clip(graph, index),
                _ => {}
            }
        }
        index += 1;
    }
}

fn is_quantized_to_float8(graph: &Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let Some(output) = node.outputs.first().filter(|_| node.domain.is_empty()) else {
        return false;
    };
    graph.nodes.iter().any(|reader| {
        let zero_point = reader.input(2).and_then(|name| graph.initializers.get(name));
        reader.op_type == "QuantizeLinear"
            && reader.input(0) == Some(output)
            && zero_point.is_some_and(|data| data.dtype == DType::F8E4M3FN)
    })
}

fn relu(graph: &mut Graph, index: usize) {
    let zero = graph.fresh_name(&format!("{}_zero", graph.nodes[index].label()));
    graph.initializers.insert(zero.clone(), TensorData::f32(&[], &[0.0]));
    let node = &mut graph.nodes[index];
    node.op_type = "Max".to_owned();
    node.inputs.push(zero);
}

/// `min(max(x, low), high)`, as the standard says of Clip; its bounds are inputs since opset 11.
fn clip(graph: &mut Graph, index: usize) {
    let node = &graph.nodes[index];
    let bound = |input: usize| node.input(input).map(str::to_owned);
    let (Some(value), low, high) = (bound(0), bound(1), bound(2)) else { return };
    let (name, output) = (node.name.clone(), node.outputs[0].clone());
    let nodes = match (low, high) {
        (Some(low), Some(high)) => {
            let inner = graph.fresh_name(&format!("{output}_above"));
            let first = graph.fresh_name(&format!("{}_above_node", node.label()));
            vec![
                Node::new(&first, "Max", &[&value, &low], &[&inner]),
                Node::new(&name, "Min", &[&inner, &high], &[&output]),
            ]
        }
        (Some(low), None) => vec![Node::new(&name, "Max", &[&value, &low], &[&output])],
        (None, Some(high)) => vec![Node::new(&name, "Min", &[&value, &high], &[&output])],
        (None, None) => return,
    };
    graph.nodes.splice(index..=index, nodes);
}
