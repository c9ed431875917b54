//! Q/DQ pairs into the graph, as a [`Plan`] says.
//!
//! Weights stay float behind their pair, so that they can be fine-tuned; their scales are those of the weights at
//! insertion ([`super::grid`]). Where types or blocks need a later opset than the model's, it is raised.

use std::collections::{HashMap, HashSet};

use crate::graph::{Attribute, Graph, Model, Node, TensorData};
use crate::quant::placement::{Plan, TensorPlan, WeightPlan, policy};
use crate::quant::scheme::zero_points;
use crate::{Result, passes};

/// Key of the model's metadata that names the runtime whose rules its Q/DQ pairs follow.
pub const TARGET_KEY: &str = "qpipe.target";
/// Key of the model's metadata that names the method whose ranges were taken.
pub const METHOD_KEY: &str = "qpipe.method";

/// Inserts the pairs of `plan` into the prepared model that it was made from.
///
/// # Errors
/// An operator that means something else in the opset that the types of the plan need.
pub fn insert(model: &mut Model, plan: &Plan) -> Result<()> {
    passes::raise_opset(model, opset(plan))?;
    let graph = &mut model.graph;
    let mut taken = HashSet::new();
    let mut before: HashMap<usize, Vec<Node>> = HashMap::new();
    for (name, weights) in by_weight(plan) {
        let first = weights.iter().map(|weight| weight.site.0).min().unwrap_or(0);
        let grid = &weights[0].grid;
        let shape = &grid.groups.shape;
        let scale = constant(graph, name, "scale", TensorData::f32(shape, &grid.scales));
        let zero_point = zero_points(grid.dtype, shape, &grid.zero_points);
        let axis = (grid.groups.axis, grid.groups.block_size);
        let (nodes, value) = pair(graph, &mut taken, name, &scale, zero_point, axis);
        for weight in weights {
            graph.nodes[weight.site.0].inputs[weight.site.1].clone_from(&value);
        }
        before.entry(first).or_default().extend(nodes);
    }
    let mut after: HashMap<usize, Vec<Node>> = HashMap::new();
    let mut shared = HashMap::new();
    for tensor in &plan.tensors {
        let producer = graph.producers().get(tensor.tensor.as_str()).copied();
        let nodes = activation_pair(graph, &mut taken, tensor, &mut shared);
        match producer {
            Some(producer) => after.entry(producer).or_default().extend(nodes),
            None => before.entry(0).or_default().splice(0..0, nodes).for_each(drop),
        }
    }
    let nodes = std::mem::take(&mut graph.nodes);
    for (index, node) in nodes.into_iter().enumerate() {
        graph.nodes.extend(before.remove(&index).unwrap_or_default());
        graph.nodes.push(node);
        graph.nodes.extend(after.remove(&index).unwrap_or_default());
    }
    let target = policy(plan.target)?.name;
    model.metadata.insert(TARGET_KEY.to_owned(), target.to_owned());
    model.metadata.insert(METHOD_KEY.to_owned(), plan.method.name().to_owned());
    Ok(())
}

/// What the types and blocks of a plan need.
fn opset(plan: &Plan) -> i64 {
    let tensors = plan.tensors.iter().map(|tensor| passes::opset_of(tensor.scheme.dtype));
    let weights = plan.weights.iter().map(|weight| {
        let blocks = weight.block_size.map_or(1, |_| passes::OPSET_OF_BLOCKS);
        blocks.max(passes::opset_of(weight.grid.dtype))
    });
    tensors.chain(weights).max().unwrap_or(1)
}

/// The plan's weights, those that several layers read with the same scales together: a layer whose bias wants wider ones has a pair of its own.
fn by_weight(plan: &Plan) -> Vec<(&str, Vec<&WeightPlan>)> {
    let mut groups: Vec<(&str, Vec<&WeightPlan>)> = Vec::new();
    for weight in &plan.weights {
        let fits = |group: &&mut (&str, Vec<&WeightPlan>)| {
            group.0 == weight.weight && group.1[0].grid == weight.grid
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.1.push(weight),
            None => groups.push((&weight.weight, vec![weight])),
        }
    }
    groups
}

/// Scales of activations by the value whose range they have, and their type.
type Shared<'p> = HashMap<(&'p str, &'static str, i64), String>;

/// The pair of an activation. Values with one range share the constant of their scale, so that training keeps them equal.
fn activation_pair<'p>(
    graph: &mut Graph,
    taken: &mut HashSet<String>,
    tensor: &'p TensorPlan,
    shared: &mut Shared<'p>,
) -> Vec<Node> {
    let range_of = tensor.range_of.as_deref().unwrap_or(&tensor.tensor);
    let key = (range_of, tensor.dtype, tensor.zero_point);
    let new = || constant(graph, &tensor.tensor, "scale", TensorData::f32(&[], &[tensor.scale]));
    let scale = shared.entry(key).or_insert_with(new).clone();
    let zero_point = zero_points(tensor.scheme.dtype, &[], &[tensor.zero_point]);
    let (nodes, value) = pair(graph, taken, &tensor.tensor, &scale, zero_point, (None, None));
    for &(node, input) in &tensor.sites {
        graph.nodes[node].inputs[input].clone_from(&value);
    }
    nodes
}

/// Adds a constant to the graph; its name.
fn constant(graph: &mut Graph, value: &str, suffix: &str, data: TensorData) -> String {
    let name = graph.fresh_name(&format!("{value}_{suffix}"));
    graph.initializers.insert(name.clone(), data);
    name
}

/// The two nodes of a pair on `name`, their zero point added to the graph, and the value they give. They are no part of the graph yet: their names
/// are added to those that are `taken`, since a weight has several pairs where the channels of its layers lie along different axes.
fn pair(
    graph: &mut Graph,
    taken: &mut HashSet<String>,
    name: &str,
    scale_name: &str,
    zero_point: TensorData,
    (axis, block_size): (Option<i64>, Option<i64>),
) -> (Vec<Node>, String) {
    let zero_name = constant(graph, name, "zero_point", zero_point);
    let mut fresh = |suffix: &str| {
        let numbered = (1..).map(|number| format!("{name}_{suffix}_{number}"));
        let mut names = std::iter::once(format!("{name}_{suffix}")).chain(numbered);
        let is_free = |name: &String| !taken.contains(name) && graph.fresh_name(name) == *name;
        let found = names.find(is_free).expect("names do not end");
        taken.insert(found.clone());
        found
    };
    let (quantized, dequantized) = (fresh("quantized"), fresh("dequantized"));
    let (quantize, dequantize) = (fresh("quantize"), fresh("dequantize"));
    let mut nodes = vec![
        Node::new(&quantize, "QuantizeLinear", &[name, scale_name, &zero_name], &[&quantized]),
        Node::new(
            &dequantize,
            "DequantizeLinear",
            &[&quantized, scale_name, &zero_name],
            &[&dequantized],
        ),
    ];
    for (name, value) in [("axis", axis), ("block_size", block_size)] {
        let Some(value) = value else { continue };
        for node in &mut nodes {
            node.attributes.insert(name.to_owned(), Attribute::Int(value));
        }
    }
    (nodes, dequantized)
}

#[cfg(test)]
mod tests {
    use qpipe::stages::calibrate::Method;
    use qpipe::stages::insert_qdq::Target;

    use super::*;
    use crate::graph::{Dim, ValueInfo};
    use crate::onnx;
    use crate::quant::fixture;
    use crate::quant::placement::plan;

    /// Weights that are tied, as those of an embedding and the last layer are, read by rows and by columns.
    #[test]
    fn a_weight_whose_layers_have_channels_along_different_axes_has_two_pairs() {
        let mut graph = Graph {
            nodes: vec![
                Node::new("in", "MatMul", &["x", "w"], &["h"]),
                Node::new("out", "Gemm", &["h", "w"], &["y"]).with("transB", Attribute::Int(1)),
            ],
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            outputs: vec![ValueInfo::f32("y", Vec::new())],
            ..Graph::default()
        };
        graph.initializers.insert("w".to_owned(), TensorData::f32(&[2, 3], &[0.5; 6]));
        let mut model = Model::new(graph, 17);
        let ranges = fixture::ranges(Method::Max, [("x", 1.0), ("h", 1.0)]);
        let request = fixture::request(Target::Tensorrt, Method::Max);
        let plan = plan(&model.graph, &ranges, &request).unwrap();
        insert(&mut model, &plan).unwrap();
        onnx::check(&model).unwrap();
        let axes: Vec<i64> = ["in", "out"]
            .map(|layer| {
                let producers = model.graph.producers();
                let layer = model.graph.nodes.iter().find(|node| node.name == layer).unwrap();
                model.graph.nodes[producers[layer.inputs[1].as_str()]].int("axis", 1).unwrap()
            })
            .to_vec();
        assert_eq!(axes, [1, 0]);
    }

    /// Layers that share a weight, the second of which reads small values and has a bias that needs wider scales for them.
    #[test]
    fn layers_whose_biases_want_other_scales_have_pairs_of_their_own() {
        let mut graph = Graph {
            nodes: vec![
                Node::new("in", "Gemm", &["x", "w", "small"], &["h"]),
                Node::new("out", "Gemm", &["h", "w", "large"], &["y"]),
            ],
            inputs: vec![ValueInfo::f32("x", [2, 2].map(Dim::Fixed).to_vec())],
            outputs: vec![ValueInfo::f32("y", [2, 2].map(Dim::Fixed).to_vec())],
            ..Graph::default()
        };
        let constants = [
            ("w", TensorData::f32(&[2, 2], &[0.5, -0.5, 0.25, 1.0])),
            ("small", TensorData::f32(&[2], &[0.1, 0.2])),
            ("large", TensorData::f32(&[2], &[9.0, -3.0])),
        ];
        graph.initializers.extend(constants.map(|(name, data)| (name.to_owned(), data)));
        let mut model = Model::new(graph, 17);
        let ranges = fixture::ranges(Method::Max, [("x", 2.0), ("h", 1e-6)]);
        let request = fixture::request(Target::Onnxruntime, Method::Max);
        let plan = plan(&model.graph, &ranges, &request).unwrap();
        insert(&mut model, &plan).unwrap();
        let weights = ["in", "out"].map(|layer| {
            let layer = model.graph.nodes.iter().find(|node| node.name == layer).unwrap();
            layer.inputs[1].clone()
        });
        assert_ne!(weights[0], weights[1]);
        crate::quant::finalize::finalize(&mut model, None).unwrap();
        onnx::check(&model).unwrap();
        // No bias is cut off, and the first layer's weight keeps its steps.
        let steps = |name: &str| {
            let (_, data) =
                model.graph.initializers.iter().find(|(n, _)| n.contains(name)).unwrap();
            data.to_i32().unwrap()
        };
        for layer in ["in_bias_quantized", "out_bias_quantized"] {
            let steps = steps(layer);
            assert!(steps.iter().all(|step| step.unsigned_abs() <= 1 << 30), "{layer}: {steps:?}");
        }
        let amax = plan.weights[0].grid.scales.iter().fold(0.0_f32, |most, s| most.max(*s));
        assert!(amax < 0.01, "{amax}");
    }
}
