//! ONNX Runtime: weights as int8, int4 or float 8 and biases as int32 constants behind a DequantizeLinear, activations uint8.
//!
//! Biases have the scale `activation × weight` of their layer: only then does a layer become one
//! integer kernel; where one of the two is no tensor of 8-bit integers there is none, and the bias stays float. int8 activations become
//! uint8 with a zero point 128 higher, the same values. Means over all positions become poolings.
//! Relu and Clip in front of float8 become Max and Min.

use qpipe::stages::insert_qdq::Target;

use super::{means, signs, weights};
use crate::Result;
use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};
use crate::quant::bias::integer_bias;

pub(super) fn finalize(model: &mut Model, placed: Option<Target>) -> Result<()> {
    means::to_pooling(model)?;
    let graph = &mut model.graph;
    signs::keep(graph);
    weights::store(graph, weights::STORED)?;
    // Pairs of another tool may share zero points in ways that these need not.
    if placed.is_some() {
        to_uint8(graph);
    }
    quantize_biases(graph)
}

/// int8 activations to uint8, whose zero point is 128 higher.
fn to_uint8(graph: &mut Graph) {
    let quantizes = graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    let zero_points: Vec<String> =
        quantizes.filter_map(|node| node.input(2).map(str::to_owned)).collect();
    for name in zero_points {
        if let Some(zero) = graph.initializers.get_mut(&name)
            && zero.dtype == DType::I8
        {
            zero.dtype = DType::U8;
            zero.bytes = zero.bytes.iter().map(|byte| byte.wrapping_add(128)).collect();
        }
    }
}

/// What dequantizes a value from integers of 8 bits: the scale's elements.
pub(super) fn scale_of(graph: &Graph, value: &str) -> Option<Vec<f32>> {
    let node = graph.nodes.iter().find(|node| node.outputs.iter().any(|o| o == value))?;
    if node.op_type != "DequantizeLinear" || node.attributes.contains_key("block_size") {
        return None;
    }
    let dtype = |index| Some(graph.initializers.get(node.input(index)?)?.dtype);
    let dtype = dtype(2).or_else(|| dtype(0));
    if dtype.is_some_and(|dtype| !matches!(dtype, DType::I8 | DType::U8)) {
        return None;
    }
    graph.initializers.get(node.input(1)?)?.to_f32().ok()
}

fn quantize_biases(graph: &mut Graph) -> Result<()> {
    let mut index = 0;
    while index < graph.nodes.len() {
        let Some((bias, scale)) = bias_scale(graph, index) else {
            index += 1;
            continue;
        };
        let node = &graph.nodes[index];
        let values = graph.initializers[&bias].to_f32().map_err(|error| error.at(node.place()))?;
        let steps = values.iter().zip(scale.iter().cycle());
        let steps: Vec<i32> = steps
            // In double precision; a cast saturates.
            .map(|(&value, &scale)| (f64::from(value) / f64::from(scale)).round_ties_even() as i32)
            .collect();
        // Layers that share a bias have scales of their own, so names are by the layer.
        let base = format!("{}_bias", node.label());
        let fresh = |suffix: &str| graph.fresh_name(&format!("{base}_{suffix}"));
        let (quantized, scale_name) = (fresh("quantized"), fresh("scale"));
        let (dequantize, dequantized) = (fresh("dequantize"), fresh("dequantized"));
        let shape = graph.initializers[&bias].shape.clone();
        let per_channel = scale.len() > 1;
        let scale_shape: &[i64] = if per_channel { &shape } else { &[] };
        graph.initializers.insert(scale_name.clone(), TensorData::f32(scale_shape, &scale));
        graph.initializers.insert(quantized.clone(), TensorData::i32(&shape, &steps));
        let mut dequantization =
            Node::new(&dequantize, "DequantizeLinear", &[&quantized, &scale_name], &[&dequantized]);
        if per_channel {
            dequantization.attributes.insert("axis".to_owned(), Attribute::Int(0));
        }
        graph.nodes[index].inputs[2] = dequantized;
        graph.nodes.insert(index, dequantization);
        index += 2;
    }
    Ok(())
}

/// The float bias of a layer whose input and weight are quantized, and its scale: one, or one a channel.
fn bias_scale(graph: &Graph, index: usize) -> Option<(String, Vec<f32>)> {
    let node = &graph.nodes[index];
    let (bias, data) = integer_bias(graph, node)?;
    let input = scale_of(graph, node.input(0)?)?;
    let weight = scale_of(graph, node.input(1)?)?;
    let fits = weight.len() == 1 || weight.len() == data.len();
    let [input] = input[..] else { return None };
    let scale = weight.into_iter().map(|weight| input * weight);
    fits.then(|| (bias.to_owned(), scale.collect()))
}
