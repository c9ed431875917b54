//! Gemm and MatMul in the one form of which ONNX Runtime makes integer kernels: Gemm without factors and with a bias `[N]`, a weight of
//! two dimensions.

use super::affine::{is_of_activation, only_read_from, per_channel};
use super::batch_norm::replace;
use crate::Result;
use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};
use crate::ops::Shapes;

/// Brings `alpha` of a Gemm into its constant weight, `beta` into its constant bias, biases of one value for each column into the
/// shape `[N]`, and weights `[1, …, K, N]` of a MatMul whose input has as many dimensions into `[K, N]`. What is not constant stays as it is.
///
/// # Errors
/// Constants of another length than their shape.
pub fn plain_products(model: &mut Model) -> Result<usize> {
    let flat = single_matrices(model);
    let graph = &mut model.graph;
    let mut changed = flat.len();
    for index in flat {
        let data = &graph.initializers[&graph.nodes[index].inputs[1]];
        let shape = data.shape[data.shape.len() - 2..].to_vec();
        let data = TensorData { shape, ..data.clone() };
        set(graph, index, 1, data);
    }
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op_type == "Gemm" && node.domain.is_empty() {
            changed += gemm(graph, index).map_err(|error| error.at(graph.nodes[index].place()))?;
        }
    }
    super::remove_dead(model)?;
    Ok(changed)
}

/// The MatMuls whose constant second factor is one matrix in a stack.
fn single_matrices(model: &Model) -> Vec<usize> {
    let graph = &model.graph;
    let constant = |node: &Node| node.input(1).and_then(|name| graph.initializers.get(name));
    let stacked = |node: &Node| {
        let shape = constant(node).map_or(&[][..], |data| &data.shape);
        let ones = shape.len().checked_sub(2).filter(|&before| before > 0);
        (node.op_type == "MatMul" && node.domain.is_empty())
            .then_some(ones)
            .flatten()
            .filter(|&before| shape[..before].iter().all(|&extent| extent == 1))
            .map(|_| shape.len())
    };
    let found: Vec<(usize, usize)> =
        (0..graph.nodes.len()).filter_map(|i| Some((i, stacked(&graph.nodes[i])?))).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let shapes = Shapes::of_any_batch(model);
    let as_many = |&(index, rank): &(usize, usize)| {
        let input = graph.nodes[index].input(0).and_then(|name| shapes.shape(name));
        // Else the result would have fewer axes.
        input.is_some_and(|shape| shape.len() >= rank)
    };
    found.into_iter().filter(as_many).map(|(index, _)| index).collect()
}

fn gemm(graph: &mut Graph, index: usize) -> Result<usize> {
    let node = &graph.nodes[index];
    let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
    let constant = |input: usize| {
        let data = node.input(input).and_then(|name| graph.initializers.get(name));
        data.filter(|data| data.dtype == DType::F32)
    };
    let Some(weight) = constant(1).filter(|weight| weight.shape.len() == 2) else { return Ok(0) };
    let mut changed = 0;
    let mut new = Vec::new();
    if alpha != 1.0
        && let Some(weight) = scaled(weight, alpha)?
    {
        new.push((1, weight, "alpha"));
    }
    let columns = weight.shape[usize::from(node.int("transB", 0)? == 0)] as usize;
    if let Some(bias) = constant(2)
        && let Some(values) = per_channel(bias, Some(2), 0, columns)?
        && (beta != 1.0 || bias.shape != [columns as i64])
    {
        let values: Vec<f32> = values.into_iter().map(|v| (v * f64::from(beta)) as f32).collect();
        if values.iter().all(|value| value.is_finite()) {
            new.push((2, TensorData::f32(&[columns as i64], &values), "beta"));
        }
    }
    for (input, data, factor) in new {
        set(graph, index, input, data);
        graph.nodes[index].attributes.shift_remove(factor);
        changed = 1;
    }
    let node = &mut graph.nodes[index];
    if node.input(2).is_none() && node.attributes.shift_remove("beta").is_some() {
        changed = 1;
    }
    Ok(changed)
}

/// A constant times a factor, where all of it stays finite.
fn scaled(data: &TensorData, factor: f32) -> Result<Option<TensorData>> {
    let values: Vec<f32> = data.to_f32()?.into_iter().map(|value| value * factor).collect();
    let finite = values.iter().all(|value| value.is_finite());
    Ok(finite.then(|| TensorData::f32(&data.shape, &values)))
}

/// Gives a node a constant, in place of the one that it reads or, where others read that too, beside it.
fn set(graph: &mut Graph, index: usize, input: usize, data: TensorData) {
    let name = graph.nodes[index].inputs[input].clone();
    let name = replace(graph, &name, data);
    graph.nodes[index].inputs[input] = name;
}

/// Makes a Gemm of each MatMul of a value of two dimensions with a constant and the Add behind it of a constant for each column: its bias, of 32-bit
/// integers then. ONNX Runtime joins the two itself before it looks for integers, and then finds a bias of floats. The node keeps the MatMul's name, its
/// output takes the Add's.
///
/// # Errors
/// Constants of another length than their shape.
pub fn biases_to_gemm(model: &mut Model) -> Result<usize> {
    let found = biased(model)?;
    let graph = &mut model.graph;
    for (product, add, constant, bias) in found.iter().rev() {
        let name = replace(graph, &graph.nodes[*add].inputs[*constant].clone(), bias.clone());
        let output = graph.nodes[*add].outputs[0].clone();
        graph.nodes.remove(*add);
        let node = &mut graph.nodes[*product];
        node.op_type = "Gemm".to_owned();
        node.inputs.push(name);
        node.outputs[0] = output;
    }
    super::remove_dead(model)?;
    Ok(found.len())
}

/// A MatMul, the Add behind it, which input of that is constant, and the bias that it becomes.
type Biased = (usize, usize, usize, TensorData);

fn biased(model: &Model) -> Result<Vec<Biased>> {
    let graph = &model.graph;
    let opaque = |node: &Node| node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)));
    if graph.nodes.iter().any(opaque) {
        return Ok(Vec::new());
    }
    let shapes = Shapes::of_any_batch(model);
    let float = |name: &String| graph.initializers.get(name).filter(|d| d.dtype == DType::F32);
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.op_type != "Add" || !node.domain.is_empty() || is_of_activation(graph, index) {
            continue;
        }
        let [first, second] = &node.inputs[..] else { continue };
        let (value, constant, bias) = match [float(first), float(second)] {
            [None, Some(data)] => (first, 1, data),
            [Some(data), None] => (second, 0, data),
            _ => continue,
        };
        let Some(position) = only_read_from(graph, index, value) else { continue };
        let product = &graph.nodes[position];
        let matmul = product.op_type == "MatMul" && product.domain.is_empty();
        let [input, weight] = &product.inputs[..] else { continue };
        let rank = shapes.shape(input).map(<[_]>::len);
        let Some(weight) = float(weight).filter(|weight| matmul && weight.shape.len() == 2) else {
            continue;
        };
        if rank != Some(2) || graph.is_initializer(input) {
            continue;
        }
        let columns = weight.shape[1];
        if let Some(values) = per_channel(bias, rank, 0, columns as usize)? {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            found.push((position, index, constant, TensorData::f32(&[columns], &values)));
        }
    }
    Ok(found)
}
