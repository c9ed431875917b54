//! Biases behind integer products of values of three dimensions and more, where the batch is fixed.
//!
//! ONNX Runtime makes a Gemm between two Reshapes of a MatMul and an Add of `[N]` where all extents are numbers, before it looks for integers. With a bias
//! of floats and an output of floats that Gemm has no integer kernel: it dequantizes its weights at each run. An Add of `[1, N]` it leaves behind the MatMul, which
//! becomes MatMulIntegerToFloat.

use std::collections::HashMap;

use qpipe::stages::insert_qdq::Target;

use super::onnxruntime::scale_of;
use crate::graph::{Graph, Model};
use crate::ops::Shapes;
use crate::passes;
use crate::quant::insert::TARGET_KEY;
use crate::quant::placement::POLICIES;

/// Gives the biases of a finalized model of a fixed batch the form in which the products before them stay integers; those of ONNX Runtime's only. Returns how
/// many have another form now.
///
/// # Errors
/// None that a model which was read can have.
pub fn keep_products(model: &mut Model) -> crate::Result<usize> {
    let own = POLICIES.iter().find(|policy| policy.target == Target::Onnxruntime);
    if own.map(|policy| policy.name) != model.metadata.get(TARGET_KEY).map(String::as_str) {
        return Ok(0);
    }
    let found = biases(model);
    let graph = &mut model.graph;
    let mut rows: HashMap<String, String> = HashMap::new();
    for &(index, input) in &found {
        let name = graph.nodes[index].inputs[input].clone();
        let row = match rows.get(&name) {
            Some(row) => row.clone(),
            None => {
                let row = graph.fresh_name(&format!("{name}_row"));
                let mut data = graph.initializers[&name].clone();
                data.shape.insert(0, 1);
                graph.initializers.insert(row.clone(), data);
                rows.insert(name, row.clone());
                row
            }
        };
        graph.nodes[index].inputs[input] = row;
    }
    passes::remove_dead(model)?;
    Ok(found.len())
}

/// The Adds, and which of their inputs is the bias.
fn biases(model: &Model) -> Vec<(usize, usize)> {
    let graph = &model.graph;
    let (shapes, producers, consumers) =
        (Shapes::declared(model), graph.producers(), graph.consumers());
    let bias_of = |index: usize| {
        let node = &graph.nodes[index];
        let [first, second] = &node.inputs[..] else { return None };
        let input = usize::from(!graph.is_initializer(first));
        let (bias, value) = if input == 0 { (first, second) } else { (second, first) };
        let data = graph.initializers.get(bias).filter(|data| data.shape.len() == 1)?;
        let product = &graph.nodes[*producers.get(value.as_str())?];
        let integers = product.op_type == "MatMul" && of_integers(graph, &product.inputs);
        let deep = shapes.shape(value).is_some_and(|shape| {
            shape.len() > 2 && shape.last().and_then(|last| last.number()) == Some(data.shape[0])
        });
        // With integers behind it the Gemm's bias becomes one.
        let readers = consumers.get(node.outputs.first()?.as_str());
        let rounded = readers.is_some_and(|readers| {
            readers.iter().all(|&reader| graph.nodes[reader].op_type == "QuantizeLinear")
        });
        (integers && deep && !rounded).then_some((index, input))
    };
    let adds = (0..graph.nodes.len()).filter(|&index| {
        graph.nodes[index].op_type == "Add" && graph.nodes[index].domain.is_empty()
    });
    adds.filter_map(bias_of).collect()
}

/// Whether both are dequantized from integers of 8 bits.
fn of_integers(graph: &Graph, inputs: &[String]) -> bool {
    inputs.iter().all(|input| scale_of(graph, input).is_some())
}
