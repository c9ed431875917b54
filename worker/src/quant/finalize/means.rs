//! Means over all positions, which some exporters write as ReduceMean, as GlobalAveragePool: ONNX Runtime has an integer kernel of that
//! operator only.

use crate::Result;
use crate::graph::{Attribute, Graph, Model, Node};
use crate::ops::Shapes;

/// Where a mean stands, and the pair behind it.
struct Mean {
    index: usize,
    /// Without the axes of the mean; else they are left with one element.
    flat: bool,
    scale: String,
    zero_point: String,
}

/// Changes those between a DequantizeLinear and a QuantizeLinear. Where the axes were dropped, a Flatten behind the pooling drops them, with a pair of the
/// same scale before it, so that it moves integers.
pub(super) fn to_pooling(model: &mut Model) -> Result<()> {
    // From the end, so that places stay.
    for mean in means(model)?.into_iter().rev() {
        let graph = &mut model.graph;
        let node = &mut graph.nodes[mean.index];
        node.op_type = "GlobalAveragePool".to_owned();
        node.attributes.clear();
        node.inputs.truncate(1);
        if mean.flat {
            flatten(graph, &mean);
        }
    }
    Ok(())
}

fn flatten(graph: &mut Graph, mean: &Mean) {
    let value = graph.nodes[mean.index].outputs[0].clone();
    let fresh = |suffix: &str| graph.fresh_name(&format!("{value}_{suffix}"));
    let [pooled, quantized, dequantized] =
        ["pooled", "pooled_quantized", "pooled_dequantized"].map(fresh);
    let [quantize, dequantize, flatten] =
        ["pooled_quantize", "pooled_dequantize", "flatten"].map(fresh);
    let parameters = [mean.scale.as_str(), &mean.zero_point];
    let pair = |name: &str, op: &str, from: &str, to: &str| {
        Node::new(name, op, &[from, parameters[0], parameters[1]], &[to])
    };
    let nodes = [
        pair(&quantize, "QuantizeLinear", &pooled, &quantized),
        pair(&dequantize, "DequantizeLinear", &quantized, &dequantized),
        Node::new(&flatten, "Flatten", &[&dequantized], &[&value]).with("axis", Attribute::Int(1)),
    ];
    let behind = mean.index + 1;
    graph.nodes[mean.index].outputs[0] = pooled;
    graph.nodes.splice(behind..behind, nodes);
}

fn means(model: &Model) -> Result<Vec<Mean>> {
    let graph = &model.graph;
    let candidates = graph.nodes.iter().enumerate();
    let candidates: Vec<_> = candidates
        .filter(|(_, node)| node.domain.is_empty() && node.op_type == "ReduceMean")
        .collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let (shapes, producers, consumers) =
        (Shapes::of_any_batch(model), graph.producers(), graph.consumers());
    let mut found = Vec::new();
    for (index, node) in candidates {
        let (Some(input), Some(output)) = (node.input(0), node.outputs.first()) else { continue };
        let rank = shapes.get(input).and_then(|fact| fact.shape.as_ref()).map(Vec::len);
        let reads = producers
            .get(input)
            .is_some_and(|&index| graph.nodes[index].op_type == "DequantizeLinear");
        let Some([reader]) = consumers.get(output.as_str()).map(Vec::as_slice) else { continue };
        let reader = &graph.nodes[*reader];
        let (Some(scale), Some(zero_point)) = (reader.input(1), reader.input(2)) else { continue };
        let between = reads && reader.op_type == "QuantizeLinear" && !graph.is_output(output);
        if between && rank.is_some_and(|rank| is_over_positions(graph, node, rank)) {
            found.push(Mean {
                index,
                flat: node.int("keepdims", 1)? == 0,
                scale: scale.to_owned(),
                zero_point: zero_point.to_owned(),
            });
        }
    }
    Ok(found)
}

/// Whether a mean of `[N, C, …]` is over all axes but the first two.
fn is_over_positions(graph: &Graph, node: &Node, rank: usize) -> bool {
    let rank = rank as i64;
    // An attribute until opset 18, then an input.
    let given = node.ints("axes").ok().flatten().map(<[i64]>::to_vec);
    let axes = given.or_else(|| graph.initializers.get(node.input(1)?)?.whole_numbers());
    let Some(mut axes) = axes else { return false };
    for axis in &mut axes {
        *axis += if *axis < 0 { rank } else { 0 };
    }
    axes.sort_unstable();
    rank > 2 && axes == (2..rank).collect::<Vec<_>>()
}
