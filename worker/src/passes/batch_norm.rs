//! BatchNormalization folded into the convolution before it (Jacob et al. 2018, section 3.2,
//! <https://arxiv.org/abs/1712.05877>).
//!
//! `y = γ (conv(x) − μ) / √(σ² + ε) + β` is a convolution with the weights `w k` and the bias
//! `(b − μ) k + β`, where `k = γ / √(σ² + ε)` for each output channel; computed in double precision.

use crate::graph::{DType, Graph, Model, Node, TensorData};
use crate::{Error, Result};

/// Folds each BatchNormalization whose input is made by a Conv, ConvTranspose or Gemm for it alone. The layer's
/// output takes the normalization's name. Returns how many were folded.
///
/// # Errors
/// Constants whose shapes do not fit together.
pub fn fold_batch_norm(model: &mut Model) -> Result<usize> {
    let graph = &mut model.graph;
    let mut folded = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        let Some(layer) = foldable(graph, index) else {
            index += 1;
            continue;
        };
        let norm = graph.nodes[index].clone();
        fold(graph, layer, &norm).map_err(|error| error.at(norm.place()))?;
        graph.nodes.remove(index);
        folded += 1;
    }
    super::remove_dead(model)?;
    Ok(folded)
}

/// The layer that the normalization at `index` folds into.
fn foldable(graph: &Graph, index: usize) -> Option<usize> {
    let norm = &graph.nodes[index];
    if norm.op_type != "BatchNormalization" || !norm.domain.is_empty() {
        return None;
    }
    if norm.outputs.is_empty() || norm.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return None;
    }
    let value = norm.input(0)?;
    if graph.is_output(value) {
        return None;
    }
    let readers = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|name| *name == value);
    if readers.count() != 1 {
        return None;
    }
    let layer = graph.nodes[..index]
        .iter()
        .position(|node| node.outputs.first().is_some_and(|o| o == value))?;
    let node = &graph.nodes[layer];
    let known = matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm");
    let constant = |node: &Node, i: usize| {
        node.input(i)
            .and_then(|name| graph.initializers.get(name))
            .is_some_and(|data| data.dtype == DType::F32)
    };
    // Gemm's factors and a grouped ConvTranspose's layout are rare enough to leave such layers as they are.
    let plain = match node.op_type.as_str() {
        "Gemm" => ["alpha", "beta"]
            .iter()
            .all(|name| node.float(name, 1.0).is_ok_and(|value| value == 1.0)),
        "ConvTranspose" => node.int("group", 1).is_ok_and(|group| group == 1),
        _ => true,
    };
    let bias = node.input(2).is_none() || constant(node, 2);
    let ready = known && plain && constant(node, 1) && bias && (1..5).all(|i| constant(norm, i));
    ready.then_some(layer)
}

fn fold(graph: &mut Graph, layer: usize, norm: &Node) -> Result<()> {
    let read = |name: &str| graph.initializers[name].to_f32();
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| read(&norm.inputs[i]));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let epsilon = f64::from(norm.float("epsilon", 1e-5)?);
    let node = &graph.nodes[layer];
    let weight = &graph.initializers[&node.inputs[1]];
    let axis = match node.op_type.as_str() {
        "ConvTranspose" => 1,
        "Gemm" => usize::from(node.int("transB", 0)? == 0),
        _ => 0,
    };
    let channels = weight.shape.get(axis).copied().unwrap_or(0) as usize;
    if [gamma.len(), beta.len(), mean.len(), variance.len()] != [channels; 4] {
        return Err(Error::user(format!(
            "scale, shift, mean and variance of {}, {}, {} and {} values behind a layer of {channels} channels",
            gamma.len(),
            beta.len(),
            mean.len(),
            variance.len()
        )));
    }
    let factor: Vec<f64> = gamma
        .iter()
        .zip(&variance)
        .map(|(&gamma, &variance)| f64::from(gamma) / (f64::from(variance) + epsilon).sqrt())
        .collect();
    let bias = match node.input(2) {
        Some(name) => broadcast(read(name)?, channels)?,
        None => vec![0.0; channels],
    };
    let bias: Vec<f32> = (0..channels)
        .map(|c| {
            ((f64::from(bias[c]) - f64::from(mean[c])) * factor[c] + f64::from(beta[c])) as f32
        })
        .collect();
    let inner: usize = weight.shape[axis + 1..].iter().map(|&extent| extent as usize).product();
    let weights: Vec<f32> = weight
        .to_f32()?
        .into_iter()
        .enumerate()
        .map(|(i, value)| (f64::from(value) * factor[i / inner.max(1) % channels]) as f32)
        .collect();
    let weights = TensorData::f32(&weight.shape.clone(), &weights);
    let weight_name = replace(graph, &graph.nodes[layer].inputs[1].clone(), weights);
    let bias = TensorData::f32(&[channels as i64], &bias);
    let old_bias = graph.nodes[layer].input(2).map(str::to_owned);
    let bias_name = old_bias.unwrap_or_else(|| bias_name(&weight_name));
    let bias_name = replace(graph, &bias_name, bias);
    let node = &mut graph.nodes[layer];
    node.inputs.truncate(1);
    node.inputs.extend([weight_name, bias_name]);
    node.outputs[0].clone_from(&norm.outputs[0]);
    Ok(())
}

/// `conv1.weight` has `conv1.bias`.
fn bias_name(weight: &str) -> String {
    weight
        .strip_suffix("weight")
        .map_or_else(|| format!("{weight}_bias"), |stem| format!("{stem}bias"))
}

fn broadcast(bias: Vec<f32>, channels: usize) -> Result<Vec<f32>> {
    match bias.len() {
        1 => Ok(vec![bias[0]; channels]),
        length if length == channels => Ok(bias),
        length => Err(Error::user(format!("a bias of {length} values for {channels} channels"))),
    }
}

/// Stores a constant under `name`, or under a fresh one where others read what stands there.
fn replace(graph: &mut Graph, name: &str, data: TensorData) -> String {
    let readers =
        graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| *input == name).count();
    let free = !graph.initializers.contains_key(name) && graph.fresh_name(name) != name;
    let name = if readers > 1 || free { graph.fresh_name(name) } else { name.to_owned() };
    graph.initializers.insert(name.clone(), data);
    name
}
